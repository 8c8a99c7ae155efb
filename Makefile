# Every target is a thin line over kedro, which works the same by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CLOUD := $(VENV)/.cloud
STANDINS := tests/standins/node
NODE := $(STANDINS)/node_modules/.ready
CHAMPION := $(or $(AL_DATA),data)/06_models/endpoint/state.json
TURN := $(BIN)/kedro run --env simulation
BRANCHES := --runner active_learning.runner.BranchRunner

# Kedro's telemetry is off in .telemetry; MLflow's is off by this.
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help install azure data simulate label-noise loop serve label watch test bench viz ui azure-tables azure-job azure-simulate azure-schedules clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[serve,dev]'
	touch $@

# What speaks to Azure: half a gigabyte that a laptop has no use for.
$(CLOUD): $(READY)
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[azure]'
	touch $@

# What tests start beside Python; without npm they are skipped and say so.
$(NODE): $(STANDINS)/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix $(STANDINS) --ignore-scripts --no-audit --no-fund --loglevel error; fi
	mkdir -p $(@D) && touch $@

install: $(READY)  ## the environment alone

azure: $(CLOUD)  ## what speaks to Azure, beside it

data: $(READY)  ## the default images: Fashion-MNIST as PNG files, a folder per class
	$(BIN)/kedro run --pipelines data --only-missing-outputs

simulate: data  ## which strategy saves how many labels; ARGS='--env simulation' for all
	$(BIN)/kedro run --pipelines simulate $(BRANCHES) --only-missing-outputs $(ARGS)

label-noise: data  ## what wrong labels cost, and what the checks of label-ingest give back
	$(BIN)/kedro run --env label_noise --pipelines simulate $(BRANCHES) --only-missing-outputs $(ARGS)

# The first turn draws its labels blindly, as there is no champion to ask.
$(CHAMPION): | data
	$(TURN) --pipelines test-set --only-missing-outputs
	$(TURN) --pipelines start,label-ingest,train,deploy

loop: data $(CHAMPION)  ## one turn of the loop with an oracle; the first time, the start before it
	$(TURN) $(ARGS)

serve: $(READY)  ## the scoring service, on http://127.0.0.1:5001; ARGS='--workers 4'
	$(BIN)/kedro serve $(ARGS)

label: $(READY)  ## Label Studio on http://127.0.0.1:8080: requests in, answers out
	$(BIN)/kedro label $(ARGS)

watch: $(READY)  ## a new export of labels starts training; Ctrl-C ends it
	$(BIN)/kedro watch $(ARGS)

azure-tables: $(CLOUD)  ## the tables of Azure Data Explorer, printed; ARGS=--apply makes them
	$(BIN)/kedro azure-tables $(ARGS)

azure-job: $(CLOUD)  ## a pipeline as a job on Azure ML: PIPELINE=train ARGS='--nodes 2 --wait'
	$(BIN)/kedro azure-job --pipeline $(PIPELINE) $(ARGS)

azure-simulate: $(CLOUD)  ## simulate on Azure ML, a node for each seed and strategy
	$(BIN)/kedro azure-simulate $(ARGS)

azure-schedules: $(CLOUD)  ## score, monitor and select by the clock; ARGS=--apply
	$(BIN)/kedro azure-schedules $(or $(ARGS),--dry-run)

test: $(CLOUD) $(NODE)  ## lint, types, import contracts and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS) || \
		$(BIN)/pytest --last-failed --last-failed-no-failures none --numprocesses 0 $(ARGS)

bench: $(READY)  ## speed, as ratios measured in one run
	$(BIN)/python -m tests.benchmarks $(ARGS)

viz: $(READY)  ## the loop as a picture, on http://127.0.0.1:4141
	$(BIN)/kedro viz run --include-hooks --host 127.0.0.1

ui: $(READY)  ## rounds and curves in MLflow, on http://127.0.0.1:5000
	$(BIN)/kedro mlflow ui --host 127.0.0.1

clean:  ## what simulations wrote; images and models stay
	rm -rf $(or $(AL_DATA),data)/07_model_output/simulation $(or $(AL_DATA),data)/08_reporting/simulation
