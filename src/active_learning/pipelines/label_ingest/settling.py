"""One label for each image, out of all that was ever answered."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from active_learning.acquisition import FloatArray, IntArray
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.schemas import DISPUTED_LABELS, empty_frame
from active_learning.services.labeling.answers import (
    LABEL,
    changed,
    microseconds,
    numbered,
)
from active_learning.services.labeling.consensus import (
    BoolArray,
    Votes,
    count_votes,
    distinct,
    in_turn,
    latest,
    weigh_labelers,
)
from active_learning.services.labeling.suspicion import suspect
from active_learning.texts import TEXT

STANDINGS = SETTLED, TIED, DISAGREEMENT, SUSPECTED = (
    "settled",
    "tied",
    "disagreement",
    "suspected",
)
_WORDS = pa.array(STANDINGS, pa.large_string())


class Answers(NamedTuple):
    """M answers about N images, as numbers; ``images`` and ``labels`` name them."""

    image: IntArray
    labeler: IntArray
    time: IntArray
    label: IntArray  # -1 for an abstention
    said: IntArray  # the label or how it was passed over
    images: pd.Index
    labels: pd.Index


class Said(NamedTuple):
    """What models said of R of the images before anyone had answered."""

    row: IntArray  # (N,) the row of each image below; -1 where nothing was said
    probabilities: FloatArray  # (R, C), 0 for a class that the model did not know
    knew: BoolArray  # (R, C)


class Standings(NamedTuple):
    """How each of N images stands."""

    label: IntArray  # -1 where nobody voted
    standing: IntArray  # a position in STANDINGS
    doubt: FloatArray  # in [0, 1], the priority of a dispute


def settle(
    every: pd.DataFrame, asked: pd.DataFrame, params: LabelIngestParams
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Take the votes of each image together.

    Args:
        every: Labels so far, each once: the columns of ``schemas.LABELS``, ``new`` and
            ``image``, a number for the ``image_id``.
        asked: What the query ``asked_probabilities`` answers.
        params: Uses ``consensus``, ``suspected`` and ``suspicion``.

    Returns:
        For each image with a vote the answer that carries its label, with ``standing``,
        ``n_answers``, ``n_votes`` and ``agreement``; what is disputed, in the columns
        of ``schemas.DISPUTED_LABELS``, the highest priority first; and ``image_id``,
        ``labeler``, ``from``, ``to`` and ``at`` of what new answers changed.
    """
    asked = asked.drop_duplicates("image_id", ignore_index=True)
    answers = _number(every)
    if not distinct(answers.image, answers.labeler, answers.time):
        # Of equal times the higher id counts, in whatever order they came.
        every = every.sort_values("label_id", ignore_index=True)
        answers = _number(every)
    last = latest(answers.image, answers.labeler, answers.time)
    last = last[answers.label[last] >= 0]
    votes = count_votes(answers.image[last], answers.label[last], len(answers.images))
    agreement = votes.n_top / np.maximum(votes.n_votes, 1)
    standings = _stand(answers, last, votes, agreement, asked, params)
    n_answers = np.bincount(answers.image, minlength=len(answers.images))
    carriers = _carriers(answers, last, standings.label)
    image = answers.image[carriers]
    each_alone = np.array_equal(carriers, np.arange(len(every)))
    settled = every if each_alone else every.iloc[carriers].reset_index(drop=True)
    settled = settled.assign(
        standing=pd.Series(_WORDS.take(standings.standing[image]), dtype=TEXT),
        n_answers=n_answers[image],
        n_votes=votes.n_votes[image],
        agreement=agreement[image],
    )
    asks_again = [TIED, DISAGREEMENT]
    if params.suspected == "second_opinion":
        asks_again.append(SUSPECTED)
    asked_again = [STANDINGS.index(standing) for standing in asks_again]
    open_still = np.isin(standings.standing, asked_again)
    open_still &= n_answers < params.consensus.max_answers
    disputed = np.flatnonzero(open_still)
    return (
        settled,
        _describe(disputed, answers, last, standings, n_answers, asked),
        _describe_changes(every, answers),
    )


def _number(every: pd.DataFrame) -> Answers:
    image, found = pd.factorize(every["image"].to_numpy())
    first = np.zeros(len(found), dtype=np.int64)
    # From the end, so that an image's first row is the one that stays.
    first[image[::-1]] = np.arange(len(image))[::-1]
    images = pd.Index(every["image_id"].array[first])
    (labeler,), _ = numbered(every["labeler"])
    (label,), labels = numbered(every["label"])
    abstained = (every["answer"] != LABEL).to_numpy()
    said = label.copy()
    said[abstained] = -1 - pd.factorize(every["answer"][abstained])[0]
    label = np.where(abstained, -1, label)
    time = microseconds(every["labeled_at"])
    return Answers(image, labeler, time, label, said, images, labels)


def _stand(
    answers: Answers,
    last: IntArray,
    votes: Votes,
    agreement: FloatArray,
    asked: pd.DataFrame,
    params: LabelIngestParams,
) -> Standings:
    several = votes.n_votes > 1
    low = several & (agreement < params.consensus.min_agreement)
    unclear = several & (votes.tied | low)
    said = _said(asked, answers) if _is_needed(unclear, asked, params) else None
    label = votes.label.copy()
    if said is not None and unclear.any():
        decided = _weigh(answers, last, several, said, params)
        for image in np.flatnonzero(unclear & (decided >= 0)).tolist():
            label[image], unclear[image] = decided[image], False
    standing = np.full(len(label), STANDINGS.index(SETTLED), dtype=np.int64)
    standing[unclear] = STANDINGS.index(DISAGREEMENT)
    standing[unclear & votes.tied] = STANDINGS.index(TIED)
    doubt = np.where(votes.tied, 1.0, 1.0 - agreement)
    if said is not None and params.suspected != "keep":
        suspects, quality = _suspect(answers, label, unclear, said, params)
        standing[suspects] = STANDINGS.index(SUSPECTED)
        doubt[suspects] = 1.0 - quality
    return Standings(label, standing, doubt)


def _is_needed(
    unclear: BoolArray, asked: pd.DataFrame, params: LabelIngestParams
) -> bool:
    weighs = unclear.any() and len(asked) >= params.consensus.min_images
    suspects = params.suspected != "keep" and len(asked) >= params.suspicion.min_labels
    return bool(weighs or suspects)


def _said(asked: pd.DataFrame, answers: Answers) -> Said:
    row = np.full(len(answers.images), -1, dtype=np.int64)
    place = answers.images.get_indexer(pd.Index(asked["image_id"]))
    there = asked[place >= 0].reset_index(drop=True)
    row[place[place >= 0]] = np.arange(len(there))
    versions = there.groupby(["model_name", "model_version"], sort=False)
    known = {key: pd.Index(of["classes"].iloc[0]) for key, of in versions}
    names = answers.labels.append(
        pd.Index([name for classes in known.values() for name in classes])
    ).unique()
    probabilities = np.zeros((len(there), len(names)))
    knew = np.zeros(probabilities.shape, dtype=np.bool_)
    for key, of in versions:
        columns = np.asarray(names.get_indexer(known[key]), dtype=np.int64)
        cells = np.ix_(of.index.to_numpy(dtype=np.int64), columns)
        probabilities[cells] = np.stack(of["probabilities"].tolist())
        knew[cells] = True
    return Said(row, probabilities, knew)


def _weigh(
    answers: Answers,
    last: IntArray,
    several: BoolArray,
    said: Said,
    params: LabelIngestParams,
) -> IntArray:
    """(N,) labels that labelers and model agree on well enough, else -1."""
    wanted = params.consensus
    decided = np.full(len(several), -1, dtype=np.int64)
    rows = last[several[answers.image[last]] & (said.row[answers.image[last]] >= 0)]
    image, label = answers.image[rows], answers.label[rows]
    # A class that the model had never met is none of its mistakes.
    strange = np.unique(image[~said.knew[said.row[image], label]])
    rows = rows[~np.isin(image, strange)]
    image, label, labeler = (
        of[rows] for of in (answers.image, answers.label, answers.labeler)
    )
    images, place = np.unique(image, return_inverse=True)
    if len(images) < wanted.min_images or len(np.unique(labeler)) < wanted.min_labelers:
        return decided
    found, quality = weigh_labelers(
        place, labeler, label, said.probabilities[said.row[images]]
    )
    voted = np.isin(
        images * said.knew.shape[1] + found, image * said.knew.shape[1] + label
    )
    sure = voted & (quality >= wanted.min_quality)
    decided[images[sure]] = found[sure]
    return decided


def _suspect(
    answers: Answers,
    label: IntArray,
    unclear: BoolArray,
    said: Said,
    params: LabelIngestParams,
) -> tuple[IntArray, FloatArray]:
    """Images whose label is suspected and confirmed by nobody; its probability."""
    images = np.flatnonzero(~unclear & (label >= 0) & (said.row >= 0))
    images = images[said.knew[said.row[images], label[images]]]
    if len(images) < params.suspicion.min_labels:
        return np.empty(0, dtype=np.int64), np.empty(0)
    wrong, quality = suspect(
        label[images],
        said.probabilities[said.row[images]],
        params.suspicion.min_confidence,
    )
    images, quality = images[wrong], quality[wrong]
    rows = np.flatnonzero(
        np.isin(answers.image, images) & (answers.label == label[answers.image])
    )
    once = np.unique(
        np.stack([answers.image[rows], answers.labeler[rows], answers.time[rows]]),
        axis=1,
    )
    single = np.bincount(once[0], minlength=len(label))[images] < 2
    return images[single], quality[single]


def _carriers(answers: Answers, last: IntArray, label: IntArray) -> IntArray:
    """The latest answer that gives each image its label, by image."""
    rows = last[answers.label[last] == label[answers.image[last]]]
    rows = rows[in_turn(answers.image[rows], answers.time[rows])]
    image = answers.image[rows]
    carriers: IntArray = rows[np.r_[image[1:] != image[:-1], True][: len(rows)]]
    return carriers


def _describe(
    disputed: IntArray,
    answers: Answers,
    last: IntArray,
    standings: Standings,
    n_answers: IntArray,
    asked: pd.DataFrame,
) -> pd.DataFrame:
    if not len(disputed):
        return empty_frame(DISPUTED_LABELS)
    votes = last[np.isin(answers.image[last], disputed)]
    said = (
        pd.DataFrame({"image": answers.image[votes], "label": answers.label[votes]})
        .value_counts(sort=True)
        .reset_index()
        .sort_values(["image", "count", "label"], ascending=[True, False, True])
    )
    told = {
        image: ", ".join(
            f"{answers.labels[label]!r} {n}"
            for label, n in zip(of["label"], of["count"], strict=True)
        )
        for image, of in said.groupby("image")
    }
    standing = [STANDINGS[number] for number in standings.standing[disputed].tolist()]
    names = answers.labels.to_numpy(dtype=object)[standings.label[disputed]]
    place = pd.Index(asked["image_id"]).get_indexer(answers.images[disputed])
    table = pd.DataFrame(
        {
            "image_id": answers.images[disputed].to_numpy(dtype=object),
            "reason": [
                f"{how}: {told[image]}"
                for how, image in zip(standing, disputed.tolist(), strict=True)
            ],
            "priority": standings.doubt[disputed],
            "label": np.where(np.array(standing) == TIED, "", names),
            "n_answers": n_answers[disputed],
            "predicted_label": np.append(asked["label"].to_numpy(dtype=object), "")[
                place
            ],
            "model_name": np.append(asked["model_name"].to_numpy(dtype=object), "")[
                place
            ],
            "model_version": np.append(
                asked["model_version"].to_numpy(dtype=np.int64), 0
            )[place],
        }
    )
    ordered: pd.DataFrame = table.sort_values(
        ["priority", "image_id"], ascending=[False, True], ignore_index=True
    )[DISPUTED_LABELS.names]
    return ordered


def _describe_changes(every: pd.DataFrame, answers: Answers) -> pd.DataFrame:
    rows, before = changed(answers.image, answers.labeler, answers.time, answers.said)
    new = every["new"].to_numpy(dtype=np.bool_)[rows]
    named = every[["image_id", "labeler", "labeled_at", "label", "answer"]]
    after, earlier = named.iloc[rows[new]], named.iloc[before[new]]
    return pd.DataFrame(
        {
            "image_id": after["image_id"].to_numpy(dtype=object),
            "labeler": after["labeler"].to_numpy(dtype=object),
            "from": _said_in(earlier),
            "to": _said_in(after),
            "at": [time.isoformat() for time in after["labeled_at"]],
        }
    )


def _said_in(answers: pd.DataFrame) -> NDArray[np.object_]:
    said = answers["label"].where(answers["answer"] == LABEL, answers["answer"])
    return said.to_numpy(dtype=object)
