"""What a simulation unrolls: its branches, their parameters and their folder.

A Kedro registry has no access to parameters. A hook announces them here as soon as
there is a context, which is before the registry is read; without a session
(``kedro registry list``) the plan is that of ``conf/base``.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from active_learning import __version__
from active_learning.acquisition import needs_embeddings
from active_learning.errors import SettingsError
from active_learning.pipelines.simulate.params import VARIABLE, SimulateParams

START = "start"
# They say how much of an experiment is run, not what a round of it is.
_EXTENT = ("rounds", "strategies", "seeds")


@dataclass(frozen=True)
class Branch:
    """One chain of rounds.

    Args:
        seed: Decides pool, order and training.
        strategy: A name or a dotted path; ``start`` is what all strategies share.
        variant: What else is changed in it, by its name in ``simulate.variants``.
    """

    seed: int
    strategy: str
    variant: str = ""

    @property
    def title(self) -> str:
        """As the report calls it: ``margin``, or ``margin (noisy)`` with a variant."""
        return f"{self.strategy} ({self.variant})" if self.variant else self.strategy

    @property
    def namespace(self) -> str:
        """``seed_0.margin``; a dotted path keeps its dots as hyphens.

        A variant follows two hyphens, which no strategy has: ``seed_0.margin--noisy``.
        """
        name = self.strategy.replace(".", "-")
        return f"seed_{self.seed}.{f'{name}--{self.variant}' if self.variant else name}"

    @property
    def start(self) -> "Branch":
        """What it shares with the other strategies of its seed and variant."""
        return Branch(self.seed, START, self.variant)

    @property
    def pool(self) -> str:
        """The images of its seed, the same for every strategy and every variant."""
        return f"{Branch(self.seed, START).namespace}.pool"

    def round(self, number: int) -> str:
        """The namespace of a round, ``seed_0.margin.round_01``."""
        return f"{self.namespace}.round_{number:02d}"


@dataclass(frozen=True)
class Plan:
    """A simulation before it runs.

    Args:
        params: How much of it.
        experiment: Names its folder: a hash of all that decides what a round
            contains. Equal settings meet their own files again and go on; other
            settings never mix with them.
    """

    params: SimulateParams
    experiment: str

    @property
    def starts(self) -> tuple[Branch, ...]:
        """What the strategies of each seed share, in every variant."""
        return tuple(
            Branch(seed, START, variant)
            for seed in self.params.seeds
            for variant in ("", *self.params.variants)
        )

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Every seed with every strategy, in every variant."""
        return tuple(
            Branch(start.seed, strategy, start.variant)
            for start in self.starts
            for strategy in self.params.strategies
        )

    def lay_out(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Give every branch its own copy of the parameters that differ in it.

        Args:
            parameters: As configured, a section for each pipeline.

        Returns:
            Them, and ``seed_<s>.<strategy>`` with ``branch``, ``score``, ``select``,
            ``oracle``, ``label_ingest`` and ``train``.

        Raises:
            pydantic.ValidationError: The section ``oracle`` does not hold together.
            SettingsError: There are more labelers than labels to ask them for.
        """
        laid_out = deepcopy(dict(parameters))
        for branch in (*self.starts, *self.branches):
            varied = _changed(parameters, self.params.variants.get(branch.variant, {}))
            seed, strategy = branch.namespace.split(".")
            laid_out.setdefault(seed, {})[strategy] = self._own(branch, varied)
        return laid_out

    def _own(self, branch: Branch, varied: Mapping[str, Any]) -> dict[str, Any]:
        """The sections of one branch, out of those of its variant."""
        own = {
            "branch": {"seed": branch.seed, "strategy": branch.title},
            "oracle": {**varied["oracle"], "seed": branch.seed},
            "label_ingest": _ingestion(varied),
            # A round without a challenger would leave a hole in its curve.
            "train": {**varied["train"], "seed": branch.seed, "min_new_labels": 0},
        }
        if branch.strategy == START:
            return own
        return {
            **own,
            "score": {
                **varied["score"],
                "source": "simulation",
                "embeddings": self._looks(branch, varied["select"]),
            },
            # The oracle tells the accuracy of all images: no audit is needed.
            "select": {
                **varied["select"],
                "strategy": branch.strategy,
                "budget": self._requests(varied),
                "audit": 0,
            },
        }

    def _requests(self, varied: Mapping[str, Any]) -> int:
        """How many images the answers of a round are enough for."""
        # pandas comes with it, which not every command needs.
        from active_learning.services.labeling.oracle import OracleParams

        labelers = OracleParams.model_validate(varied["oracle"]).labelers
        fewest = min(self.params.initial_labels, self.params.labels_per_round)
        if labelers > fewest:
            raise SettingsError(
                f"oracle.labelers is {labelers}, and simulate pays for {fewest} "
                "answers at a time: not one image can be asked about. Raise "
                "simulate.initial_labels and simulate.labels_per_round."
            )
        return self.params.labels_per_round // labelers

    def _looks(self, branch: Branch, select: Mapping[str, Any]) -> bool:
        """Whether a branch looks at embeddings; most need not make them."""
        if select["near_duplicates"]["by"] == "embedding":
            return True
        return needs_embeddings(branch.strategy, select["over"])


def make_plan(parameters: Mapping[str, Any], images: str) -> Plan:
    """Read a plan from the parameters as configured.

    Args:
        parameters: A section for each pipeline.
        images: The root of the labeled images.

    Raises:
        pydantic.ValidationError: The section ``simulate`` does not hold together.
    """
    params = SimulateParams.model_validate(parameters["simulate"])
    sections = deepcopy({name: parameters[name] for name in _SECTIONS})
    for name in _EXTENT:
        sections["simulate"].pop(name)
    # What a branch sets itself, and what nobody asks a replay.
    for name in ("strategy", "budget", "stopping"):
        sections["select"].pop(name, None)
    sections["train"].pop("min_new_labels", None)
    decisive = [__version__, images, sections]
    digest = sha256(json.dumps(decisive, sort_keys=True, default=str).encode())
    return Plan(params, f"{Path(images).name}-{digest.hexdigest()[:8]}")


_SECTIONS = (*VARIABLE, "test_set", "simulate")
_announced: Plan | None = None


def announce(plan: Plan) -> None:
    """Make a plan the one that the registry unrolls and the catalog is named by."""
    global _announced  # noqa: PLW0603  # the registry is called without arguments
    _announced = plan


def current_plan() -> Plan:
    """The announced plan, or that of ``conf/base`` where there is no session."""
    return _announced if _announced is not None else _base_plan()


def experiment() -> str:
    """The folder of the current plan, for the catalog."""
    return current_plan().experiment


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with some leaves changed, however deep."""
    changed = dict(values)
    for name, change in changes.items():
        deeper = isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
        changed[name] = _changed(values[name], change) if deeper else change
    return changed


def _ingestion(varied: Mapping[str, Any]) -> dict[str, Any]:
    """Where no label is wrong, to suspect one would cost an answer and find nothing."""
    checked = dict(varied["label_ingest"])
    return checked if varied["oracle"]["noise"] else {**checked, "suspected": "keep"}


def _base_plan() -> Plan:
    # Without a session nothing is run, so the folder's name does not matter; a second
    # configuration loader would take the place of the first one's resolvers.
    from kedro.utils import find_kedro_project

    project = find_kedro_project(Path.cwd())
    if project is None:
        raise FileNotFoundError(f"{Path.cwd()} is not inside a Kedro project.")
    file = project / "conf" / "base" / "simulate" / "parameters.yml"
    section = yaml.safe_load(file.read_text(encoding="utf-8"))["simulate"]
    return Plan(SimulateParams.model_validate(section), "without-a-session")
