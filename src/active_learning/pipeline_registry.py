"""The pipelines by name, in the order of the loop."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from kedro.pipeline import Pipeline

LOOP = {
    "score": "active_learning.pipelines.score.pipeline",
    "monitor": "active_learning.pipelines.monitor.pipeline",
    "select": "active_learning.pipelines.select.pipeline",
    "label-ingest": "active_learning.pipelines.label_ingest.pipeline",
    "train": "active_learning.pipelines.train.pipeline",
    "deploy": "active_learning.pipelines.deploy.pipeline",
}
BESIDE = {
    "data": "active_learning.pipelines.data.pipeline",
    "start": "active_learning.pipelines.start.pipeline",
    "test-set": "active_learning.pipelines.test_set.pipeline",
    "simulate": "active_learning.pipelines.simulate.pipeline",
}


class OnDemand(Mapping[str, Pipeline]):
    """Pipelines that are imported when somebody asks for them by name.

    You pay only for what you run: ``kedro run --pipelines select`` neither imports
    nor unrolls ``simulate``.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        """Hold the module of each pipeline; its ``create_pipeline`` makes it."""
        self._modules = dict(modules)
        self._made: dict[str, Pipeline] = {}

    def __getitem__(self, name: str) -> Pipeline:
        """Import and make one; ``__default__`` is one turn of the loop."""
        if name not in self._made:
            if name == "__default__":
                self._made[name] = Pipeline([self[step] for step in LOOP])
            else:
                self._made[name] = import_module(self._modules[name]).create_pipeline()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        """The names, the loop first."""
        return iter(["__default__", *self._modules])

    def __len__(self) -> int:
        """How many there are."""
        return len(self._modules) + 1


def register_pipelines() -> Mapping[str, Pipeline]:
    """Every pipeline that works, made on demand."""
    return OnDemand(LOOP | BESIDE)
