"""Parameters of ``label-ingest``."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from active_learning.parameters import Parameters


class Consensus(Parameters):
    """When several labelers agree well enough, and who decides when they do not."""

    min_agreement: float = Field(ge=0, le=1)
    disagreement: Literal["keep", "hold_out"]
    min_labelers: PositiveInt
    min_images: PositiveInt
    min_quality: float = Field(ge=0, le=1)
    max_answers: PositiveInt


class Suspicion(Parameters):
    """When a model's doubt about a label is believed."""

    min_labels: PositiveInt
    min_confidence: float = Field(ge=0, le=1)


class LabelIngestParams(Parameters):
    """What is accepted as a label. ``conf/base`` is the one home of its values."""

    classes: tuple[str, ...] | None
    new_classes: Literal["refuse", "allow", "map"]
    map: dict[str, str]
    unsolicited: Literal["accept", "refuse"]
    clock_skew_s: NonNegativeFloat
    consensus: Consensus
    suspected: Literal["keep", "hold_out", "second_opinion"]
    suspicion: Suspicion
    train_on_audits: bool

    @model_validator(mode="after")
    def _refuse_a_map_that_leads_nowhere(self) -> Self:
        if self.map and self.new_classes != "map":
            raise ValueError(
                f"map names {len(self.map)} classes, but new_classes is "
                f"{self.new_classes!r}: a map is used with new_classes: map alone"
            )
        if self.classes is not None:
            strange = sorted(set(self.map.values()) - set(self.classes))
            if strange:
                raise ValueError(
                    f"map leads to {strange}, which are not among classes "
                    f"{list(self.classes)}"
                )
        return self
