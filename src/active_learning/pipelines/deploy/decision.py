"""What is decided about a challenger, and on which grounds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from active_learning.evaluation.paired import Difference
from active_learning.services.deployment.state import Release

Outcome = Literal[
    "pending",  # exported, not judged
    "accepted",  # judged, not in production
    "promoted",
    "refused",
    "unchanged",
    "rolled_back",
    "failed",
]


class Figures(BaseModel):
    """Two models on the same images; without a champion there is one alone.

    Attributes:
        n: Images.
        challenger: Part of them that it got right.
        champion: Part that the champion got right.
        only_challenger: Images that it alone got right.
        only_champion: Images that the champion alone got right.
        difference: The challenger's part less the champion's.
        low: Lower end of the interval around the difference.
        high: Its upper end.
        level: Of the interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    challenger: float
    champion: float | None = None
    only_challenger: int | None = None
    only_champion: int | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None

    @classmethod
    def of(cls, difference: Difference, level: float) -> "Figures":
        """What a comparison of the challenger with the champion gave."""
        return cls(
            n=difference.n,
            challenger=difference.first,
            champion=difference.second,
            only_challenger=difference.only_first,
            only_champion=difference.only_second,
            difference=difference.difference,
            low=difference.low,
            high=difference.high,
            level=level,
        )


class Parity(BaseModel):
    """How an export answered beside its checkpoint; see ``services.scoring.model``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    max_difference: float
    same_top: bool


class Decision(BaseModel):
    """What becomes of a challenger.

    Attributes:
        decision: The outcome so far.
        reasons: Why, a sentence each.
        challenger: The release that it is about, if it could be exported.
        champion: What was in production when it was decided.
        parity: Of the export.
        test_set: Fingerprint of what both were measured on.
        training_set: Fingerprint of what the challenger says it learned from.
        accuracy: On the test set.
        recall: By class, on its images alone.
        unfinished: What a second run has to complete.
        decided_at: ISO 8601, UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    decision: Outcome
    reasons: tuple[str, ...] = ()
    challenger: Release | None = None
    champion: Release | None = None
    parity: Parity | None = None
    test_set: str | None = None
    training_set: str | None = None
    accuracy: Figures | None = None
    recall: dict[str, Figures] = {}
    unfinished: str | None = None
    decided_at: str | None = None

    def becomes(
        self, decision: Outcome, *reasons: str, **changes: object
    ) -> "Decision":
        """The next decision, with more reasons."""
        return self.model_copy(
            update={
                "decision": decision,
                "reasons": (*self.reasons, *reasons),
                **changes,
            }
        )
