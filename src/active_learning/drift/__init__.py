"""Monitors: has a window of production moved away from a reference? NumPy in and out.

Counts of classes or of bins go to ``compare_counts``, embeddings and single scores to
``compare_samples``; both give a ``Shift``, and ``verdict`` holds it against limits.
"""

from active_learning.drift.counts import compare_counts
from active_learning.drift.samples import compare_samples
from active_learning.drift.shift import Shift, Verdict, verdict, worst

__all__ = [
    "Shift",
    "Verdict",
    "compare_counts",
    "compare_samples",
    "verdict",
    "worst",
]
