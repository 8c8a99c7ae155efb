"""Parameters of ``label-ingest``."""

from active_learning.parameters import Parameters


class LabelIngestParams(Parameters):
    """What is accepted as a label. ``conf/base`` is the one home of its values."""

    classes: tuple[str, ...] | None
