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
from active_learning.pipelines.simulate.params import SimulateParams

START = "start"
# They say how much of an experiment is run, not what a round of it is.
_EXTENT = ("rounds", "strategies", "seeds")


@dataclass(frozen=True)
class Branch:
    """One chain of rounds.

    Args:
        seed: Decides pool, order and training.
        strategy: A name or a dotted path; ``start`` is what all strategies share.
    """

    seed: int
    strategy: str

    @property
    def namespace(self) -> str:
        """``seed_0.margin``; a dotted path keeps its dots as hyphens."""
        return f"seed_{self.seed}.{self.strategy.replace('.', '-')}"

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
        """What the strategies of each seed share."""
        return tuple(Branch(seed, START) for seed in self.params.seeds)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Every seed with every strategy."""
        return tuple(
            Branch(seed, strategy)
            for seed in self.params.seeds
            for strategy in self.params.strategies
        )

    def lay_out(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Give every branch its own copy of the parameters that differ in it.

        Args:
            parameters: As configured, a section for each pipeline.

        Returns:
            Them, and ``seed_<s>.<strategy>`` with ``branch``, ``score``, ``select``
            and ``train``.
        """
        laid_out = deepcopy(dict(parameters))
        for branch in (*self.starts, *self.branches):
            own = {
                "branch": {"seed": branch.seed, "strategy": branch.strategy},
                "score": {
                    **parameters["score"],
                    "source": "simulation",
                    "embeddings": self._looks(branch, parameters["select"]),
                },
                # The oracle tells the accuracy of all images: no audit is needed.
                "select": {
                    **parameters["select"],
                    "strategy": branch.strategy,
                    "budget": self.params.labels_per_round,
                    "audit": 0,
                },
                "train": {**parameters["train"], "seed": branch.seed},
            }
            if branch.strategy == START:
                own = {name: own[name] for name in ("branch", "train")}
            seed, strategy = branch.namespace.split(".")
            laid_out.setdefault(seed, {})[strategy] = own
        return laid_out

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
    for name in ("strategy", "budget"):
        sections["select"].pop(name, None)
    decisive = [__version__, images, sections]
    digest = sha256(json.dumps(decisive, sort_keys=True, default=str).encode())
    return Plan(params, f"{Path(images).name}-{digest.hexdigest()[:8]}")


_SECTIONS = ("score", "select", "label_ingest", "train", "test_set", "simulate")
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
