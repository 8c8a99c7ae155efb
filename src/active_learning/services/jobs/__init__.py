"""Pipelines as jobs on Azure Machine Learning.

A job is written as the YAML that Azure ML documents: ``entities`` makes it, the client
library checks it against its schema, ``azure`` submits it.
"""

from active_learning.errors import ActiveLearningError


class JobError(ActiveLearningError):
    """A job that could not be described, submitted or followed, or has failed."""
