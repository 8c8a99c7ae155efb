"""What the tables of Azure Data Explorer are told."""

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from active_learning.parameters import Parameters
from active_learning.schemas import TABLES


class AdxTablesSettings(Parameters):
    """How long rows are kept and how they come in. No defaults here: conf has them.

    Attributes:
        cluster: Its URL; ``None`` where nothing is asked of it.
        database: Its name there.
        folder: Where the tables stand in the tree of the web UI.
        retention_days: Of every table, by name. Older rows are deleted.
        invalid_days: The same for ``invalid_predictions``.
        hot_days: Rows of the last days are on the cluster's own disks.
        batching_s: How long the service gathers small files before it ingests them,
            10 to 1,800.
        streaming: Tables whose rows may come one at a time.
        attempts: At a command that the service cannot take now.
        retry_s: Before the second of them, then ever later; also between two looks at
            an operation that goes on.
        wait_s: How long such an operation may take.
    """

    cluster: str | None = Field(pattern=r"^https?://[^/]+/?$")
    database: str | None
    folder: str = Field(min_length=1)
    retention_days: dict[str, PositiveInt]
    invalid_days: PositiveInt
    hot_days: PositiveInt
    batching_s: int = Field(ge=10, le=1800)
    streaming: frozenset[str]
    attempts: PositiveInt
    retry_s: PositiveFloat
    wait_s: PositiveFloat

    @model_validator(mode="after")
    def _every_table_is_known_and_kept(self) -> Self:
        for name, said in (
            ("retention_days", set(self.retention_days)),
            ("streaming", set(self.streaming)),
        ):
            strange = sorted(said - set(TABLES))
            if strange:
                raise ValueError(
                    f"{name} names {strange}, which are no tables; there are "
                    f"{sorted(TABLES)}"
                )
        missing = sorted(set(TABLES) - set(self.retention_days))
        if missing:
            raise ValueError(f"retention_days does not say how long {missing} are kept")
        return self
