"""The gate: what a challenger must show to take the champion's place."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from active_learning.evaluation.paired import Difference, compare, images_needed
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.deploy.decision import Figures
from active_learning.pipelines.deploy.params import DeployParams
from active_learning.schemas import fingerprint

BoolArray = NDArray[np.bool_]


class Verdict(NamedTuple):
    """Whether, why, and the figures it rests on."""

    accepted: bool
    reasons: list[str]
    accuracy: Figures
    recall: dict[str, Figures]


def judge(
    right: BoolArray,
    champion_right: BoolArray | None,
    labels: Sequence[str],
    params: DeployParams,
) -> Verdict:
    """Hold a challenger against the champion on the same images.

    Args:
        right: (N,) true where the challenger is right.
        champion_right: (N,) the same of the champion; ``None`` before the first.
        labels: N class names, the truth.
        params: Uses ``level``, ``tolerance`` and ``max_recall_drop``.

    Returns:
        Accepted where accuracy is no worse by more than the tolerance and no class's
        recall collapses; all figures either way.
    """
    names = np.asarray(labels)
    classes = sorted(set(labels))
    if champion_right is None:
        alone = {
            name: Figures(
                n=int((names == name).sum()),
                challenger=float(right[names == name].mean()),
            )
            for name in classes
        }
        accuracy = Figures(n=len(right), challenger=float(right.mean()))
        reason = (
            f"It is the first model: {accuracy.challenger:.4f} of {len(right)} test "
            "images are right."
        )
        return Verdict(True, [reason], accuracy, alone)
    overall = compare(right, champion_right, params.level)
    accepted, reason = _judge_accuracy(overall, params)
    # Each of K classes may look worse by chance, so each interval is wider: all K hold
    # together with the level (Bonferroni).
    level = 1 - (1 - params.level) / len(classes)
    recall = {
        name: compare(right[names == name], champion_right[names == name], level)
        for name in classes
    }
    collapses = [
        _collapse(name, found)
        for name, found in recall.items()
        if -found.difference > params.max_recall_drop and found.high < 0
    ]
    return Verdict(
        accepted and not collapses,
        [reason, *collapses],
        Figures.of(overall, params.level),
        {name: Figures.of(found, level) for name, found in recall.items()},
    )


def flaws(
    challenger: Classifier,
    champion: Classifier | None,
    training_set: pd.DataFrame,
    test_set: pd.DataFrame,
) -> list[str]:
    """Why a challenger cannot be compared at all; empty where it can.

    Args:
        challenger: As it would serve.
        champion: What serves; ``None`` before the first.
        training_set: ``content`` and ``label`` of what it should have learned from.
        test_set: ``content`` of what no model may learn from.
    """
    return [
        flaw
        for flaw in (
            _flawed_classes(challenger, champion),
            _flawed_version(challenger, champion),
            _flawed_training(challenger, training_set, test_set),
        )
        if flaw
    ]


def _judge_accuracy(found: Difference, params: DeployParams) -> tuple[bool, str]:
    said = (
        f"Accuracy {found.first:.4f} against {found.second:.4f} on the same {found.n} "
        f"test images: {found.difference:+.4f}, {params.level:.0%} interval "
        f"{found.low:+.4f} to {found.high:+.4f}"
    )
    tolerance = f"{params.tolerance:g}"
    if found.low >= -params.tolerance:
        return True, f"{said}; not worse by more than {tolerance}."
    differing = (found.only_first + found.only_second) / found.n
    needed = images_needed(differing, params.tolerance, params.level)
    if found.n >= needed:
        return False, f"{said}; it may be worse by more than {tolerance}."
    # So few images could not clear a challenger that is exactly as good.
    better = found.difference >= 0
    return better, (
        f"{said}. So few images cannot show that it is not worse by more than "
        f"{tolerance}, however good it is; about {needed} could. Until then the "
        f"estimate decides, and it is {'not worse' if better else 'worse'}."
    )


def _collapse(name: str, found: Difference) -> str:
    return (
        f"Recall of {name!r} falls from {found.second:.4f} to {found.first:.4f} on its "
        f"{found.n} test images, by more than deploy.max_recall_drop and by more than "
        f"chance: the interval is {found.low:+.4f} to {found.high:+.4f}."
    )


def _flawed_classes(challenger: Classifier, champion: Classifier | None) -> str | None:
    if champion is None:
        return None
    old, new = champion.classes, challenger.classes
    missing = [name for name in old if name not in new]
    if missing:
        return (
            f"{len(missing)} of the champion's {len(old)} classes are unknown to the "
            f"challenger; the first is {missing[0]!r}. Train it from the champion."
        )
    if new[: len(old)] != old:
        first = next(n for n, name in enumerate(old) if new[n] != name)
        return (
            f"The champion's classes stand in another order; number {first} is "
            f"{new[first]!r} instead of {old[first]!r}. Train it from the champion."
        )
    return None


def _flawed_version(challenger: Classifier, champion: Classifier | None) -> str | None:
    if champion is None or challenger.version > champion.version:
        return None
    return (
        f"Version {challenger.version} is not newer than the champion's "
        f"{champion.version}: it was trained from an earlier one. Train again."
    )


def _flawed_training(
    challenger: Classifier, training_set: pd.DataFrame, test_set: pd.DataFrame
) -> str | None:
    said = challenger.lineage.get("training_set")
    there = fingerprint(training_set)
    if said != there:
        return (
            "What it learned from is unknown: it names a training set of the "
            f"fingerprint {str(said)[:12]}, and there is one of {there[:12]}. Train "
            "again on what label-ingest has made."
        )
    leaks = training_set[training_set["content"].isin(set(test_set["content"]))]
    if len(leaks):
        return (
            f"{len(leaks)} of {len(training_set)} images that it learned from are in "
            "the frozen test set or copies of its images; the first is "
            f"image_id={leaks['image_id'].iloc[0]!r}. Take them out of the training "
            "set and train again."
        )
    return None
