"""How far one window is from another, and whether that is worth an alarm."""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

Verdict = Literal["stable", "too_few", "drift"]
BY_SEVERITY: Final[tuple[Verdict, ...]] = ("stable", "too_few", "drift")


class Shift(NamedTuple):
    """Two sizes of a difference, and what chance has to say to it.

    ``psi`` and ``js`` are 0 for equal windows and tell how far they are apart;
    ``statistic`` and ``p_value`` tell how hard that is to get by chance. Every number
    is finite, so that a report of them is JSON.
    """

    psi: float
    js: float
    statistic: float
    p_value: float
    n_reference: int
    n_current: int


def no_shift(n_reference: int, n_current: int) -> Shift:
    """Say that nothing was seen, as where there was nothing to compare."""
    return Shift(0.0, 0.0, 0.0, 1.0, n_reference, n_current)


def verdict(
    shift: Shift, psi_limit: float, js_limit: float, p_limit: float, min_rows: int
) -> Verdict:
    """Call a shift drift when it is both large and no work of chance.

    With many rows every difference is significant, and with few rows every
    difference is large; only what is both is worth someone's morning.

    Args:
        shift: What was measured.
        psi_limit: From here on the population stability index is large. Scorecard
            practice watches from 0.1 and acts from 0.25.
        js_limit: From here on the Jensen-Shannon distance is large.
        p_limit: Up to here the p-value is small.
        min_rows: Fewer in either window, and nothing is said.

    Source:
        Siddiqi, *Credit Risk Scorecards*, 2006, for the limits of the index; Lin,
        Lucas and Shmueli, *Too Big to Fail: Large Samples and the p-Value Problem*,
        2013, for why a p-value alone will not do.
    """
    if min(shift.n_reference, shift.n_current) < min_rows:
        return "too_few"
    large = shift.psi >= psi_limit or shift.js >= js_limit
    return "drift" if large and shift.p_value <= p_limit else "stable"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Give the one to act on; no verdict at all is too few."""
    return max(verdicts, key=BY_SEVERITY.index, default="too_few")
