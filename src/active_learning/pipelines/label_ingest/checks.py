"""Which answers may be learned from, and why the others may not."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.acquisition import IntArray
from active_learning.imaging import ImageStore
from active_learning.imaging.ids import flaw
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.schemas import LABEL_REQUESTS
from active_learning.services.labeling.answers import (
    ABSTENTIONS,
    LABEL,
    Findings,
    contradicted,
    latest_requests,
    microseconds,
    numbered,
    places,
    unlike_copies,
)
from active_learning.services.labeling.consensus import BoolArray
from active_learning.texts import TEXT, among, surely_unlike, to_texts

# Matches every name that `flaw` finds fault with; the others need no Python.
_SUSPECT = r"^$|^[/.]|[\\\x00:]|\.\.|//|\./|/$|/\.$|[^\x00-\x7F]"


# What is used of each label request.
REQUESTS = pa.schema(
    [
        LABEL_REQUESTS.field(name)
        for name in ("request_id", "image_id", "round", "audit", "requested_at")
    ]
)


class Images(NamedTuple):
    """The images of new answers, known labels and requests, numbered together."""

    new: IntArray
    known: IntArray
    asked: IntArray


def survey(names: pd.Series, images: ImageStore) -> pd.DataFrame:
    """What each image is now, a name that is none included.

    Returns:
        ``image_id``, ``content`` and ``reason``, in order: SHA-256, or why it cannot
        be used.
    """
    suspects = names.str.contains(_SUSPECT).to_numpy(dtype=np.bool_)
    image_ids = names.tolist()
    rows = np.flatnonzero(suspects).tolist()
    flaws = {row: why for row in rows if (why := flaw(image_ids[row]))}
    if not flaws:
        return images.survey(image_ids)
    usable = np.delete(np.arange(len(names)), list(flaws))
    surveyed = images.survey([image_ids[row] for row in usable.tolist()])
    unfit = pd.DataFrame(
        {
            "image_id": [image_ids[row] for row in flaws],
            "content": "",
            "reason": list(flaws.values()),
        },
        index=list(flaws),
    )
    return pd.concat([surveyed.set_axis(usable), unfit]).sort_index()


def judge(
    answers: pd.DataFrame,
    known: pd.DataFrame,
    requests: pd.DataFrame,
    images: Images,
    contents: pd.DataFrame,
    test_set: pd.DataFrame,
    now: datetime,
    params: LabelIngestParams,
) -> pd.DataFrame:
    """Look at every new answer.

    Args:
        answers: What ``gather_answers`` gives, without what is known.
        known: Labels of earlier runs.
        requests: What was asked for.
        images: Of all three.
        contents: What ``survey`` says of the images of the first two, by number.
        test_set: ``content`` of the images that are never trained on.
        now: Takes the place of a time that is missing.
        params: Uses all that concerns one answer.

    Returns:
        The answers with the ``label`` they are taken for, ``labeled_at``, the
        ``request_id`` they answer, its ``round`` and the ``reason``, empty where there
        is none.
    """
    findings = Findings(answers["reason"])
    _check_what_is_said(findings, answers)
    _check_images(findings, images, contents, test_set)
    labels = _check_classes(findings, answers, known, params)
    times = _check_times(findings, answers, now, params)
    judged = answers.assign(label=labels, labeled_at=times)
    found = _check_requests(findings, judged, requests, images, params)
    judged = judged.assign(**found)
    _check_contradictions(findings, judged, known, images)
    _check_copies(findings, judged, known, images, contents)
    reasons = pd.Series(findings.reasons, index=answers.index, dtype=TEXT)
    return judged.assign(reason=reasons)


def _check_what_is_said(findings: Findings, answers: pd.DataFrame) -> None:
    answer, label = answers["answer"], answers["label"]
    abstained = answer.isin(ABSTENTIONS).to_numpy()
    is_label = (answer == LABEL).to_numpy()
    empty = (label == "").to_numpy()
    findings.refuse(
        ~(is_label | abstained),
        lambda row: (
            f"its answer {answer.iloc[row]!r} is none of label, "
            f"{', '.join(ABSTENTIONS)}"
        ),
    )
    findings.refuse(
        abstained & ~empty,
        lambda row: f"it is {answer.iloc[row]} and yet names {label.iloc[row]!r}",
    )
    findings.refuse(is_label & empty, "the label is empty")


def _check_images(
    findings: Findings, images: Images, contents: pd.DataFrame, test_set: pd.DataFrame
) -> None:
    reasons = contents["reason"]
    unfit = (reasons != "").to_numpy()
    findings.refuse(
        unfit[images.new],
        lambda row: f"the image cannot be used: {reasons.iloc[images.new[row]]}",
    )
    held_out = among(contents["content"], test_set["content"])
    findings.refuse(
        held_out[images.new],
        "the image is in the frozen test set, or a copy of one that is",
    )


def _check_classes(
    findings: Findings,
    answers: pd.DataFrame,
    known: pd.DataFrame,
    params: LabelIngestParams,
) -> pd.Series:
    """The class that each label is taken for."""
    allowed = allowed_classes(known, params)
    if allowed is None or params.new_classes == "allow":
        return answers["label"]
    codes, labels = pd.factorize(answers["label"])
    said = [params.map.get(label, label) for label in labels]
    taken = {*allowed, *params.map.values()}
    unknown = np.array([label not in taken for label in said], dtype=np.bool_)
    reasons = [
        _unknown_class(label, sorted(taken)) if wrong else ""
        for label, wrong in zip(said, unknown, strict=True)
    ]
    is_label = (answers["answer"] == LABEL).to_numpy()
    findings.refuse(is_label & unknown[codes], lambda row: reasons[codes[row]])
    if not params.map:
        return answers["label"]
    names = pd.array(np.array(said, dtype=object)[codes], dtype=TEXT)
    return pd.Series(names, index=answers.index)


def allowed_classes(
    known: pd.DataFrame, params: LabelIngestParams
) -> frozenset[str] | None:
    """The classes that are none of the new ones; ``None`` before there are any."""
    if params.classes is not None:
        return frozenset(params.classes)
    return (frozenset(known["label"].unique()) - {""}) or None


def _unknown_class(label: str, allowed: Sequence[str]) -> str:
    near = get_close_matches(label, allowed, n=1)
    hint = f"; did the labeler mean {near[0]!r}?" if near else ""
    return f"{label!r} is none of the {len(allowed)} classes of label_ingest{hint}"


def _check_times(
    findings: Findings,
    answers: pd.DataFrame,
    now: datetime,
    params: LabelIngestParams,
) -> pd.Series:
    """When each was answered, no later than now."""
    times = answers["labeled_at"]
    end = pd.Timestamp(now)
    late = times > end + timedelta(seconds=params.clock_skew_s)
    findings.refuse(
        late.to_numpy(),
        lambda row: (
            f"its time, {times.iloc[row].isoformat()}, is in the future; "
            "look at the clock that gave it"
        ),
    )
    # A later time than that of the training would hide that the label was learned.
    return times.where(times < end, end.as_unit("us"))


def _check_requests(
    findings: Findings,
    answers: pd.DataFrame,
    requests: pd.DataFrame,
    images: Images,
    params: LabelIngestParams,
) -> dict[str, Any]:
    """The request that each answers and its round; empty and 0 where there is none."""
    request_ids = answers["request_id"]
    place = places(request_ids, requests["request_id"])
    asked = np.append(images.asked, -1)[place]
    findings.refuse(
        (place >= 0) & (asked != images.new),
        lambda row: (
            f"it answers the request {request_ids.iloc[row]!r}, which is for the "
            f"image {requests['image_id'].iloc[place[row]]!r}"
        ),
    )
    unnamed = (request_ids == "").to_numpy()
    if unnamed.any():
        place[unnamed] = latest_requests(
            images.new[unnamed],
            # An answer may be a little older than its request by another clock.
            microseconds(answers["labeled_at"])[unnamed]
            + int(params.clock_skew_s * 1e6),
            images.asked,
            microseconds(requests["requested_at"]),
        )
        named = pa.array(place, mask=place < 0)
        found = to_texts(requests["request_id"]).take(named).fill_null("")
        found = pc.if_else(pa.array(unnamed), found, to_texts(request_ids))
        request_ids = pd.Series(found, index=answers.index, dtype=TEXT)
    if params.unsolicited == "refuse":
        findings.refuse(place < 0, "no request asked for it")
    rounds = np.append(requests["round"].to_numpy(dtype=np.int64), 0)[place]
    return {"request_id": request_ids, "round": rounds}


def _check_contradictions(
    findings: Findings, answers: pd.DataFrame, known: pd.DataFrame, images: Images
) -> None:
    # Who answered once for an image contradicts nobody, nor does what was known before.
    often = np.bincount(np.r_[images.new[findings.good], images.known]) > 1
    rows = np.flatnonzero(findings.good)
    rows = rows[often[images.new[rows]]]
    if not len(rows):
        return
    before = np.flatnonzero(often[images.known])
    new, earlier = answers.iloc[rows], known.iloc[before]
    (labeler, known_labeler), _ = numbered(new["labeler"], earlier["labeler"])
    said = [
        frame["label"].where(frame["answer"] == LABEL, frame["answer"])
        for frame in (new, earlier)
    ]
    (label, known_label), _ = numbered(*said)
    groups = contradicted(
        np.r_[images.new[rows], images.known[before]],
        np.r_[labeler, known_labeler],
        np.r_[microseconds(new["labeled_at"]), microseconds(earlier["labeled_at"])],
        np.r_[label, known_label],
    )
    of_new = np.full(len(answers), -1, dtype=np.int64)
    of_new[rows] = groups[: len(rows)]
    if not (of_new >= 0).any():
        return
    every = pd.concat(said, ignore_index=True)
    told = {
        group: " and ".join(sorted(map(repr, of.unique())))
        for group, of in every.groupby(groups)
    }
    findings.refuse(
        of_new >= 0,
        lambda row: (
            f"the same labeler answered {told[of_new[row]]} at the same time; keep "
            "one, or give the correction a later labeled_at"
        ),
    )


def _check_copies(
    findings: Findings,
    answers: pd.DataFrame,
    known: pd.DataFrame,
    images: Images,
    contents: pd.DataFrame,
) -> None:
    if surely_unlike(to_texts(contents["content"])):
        return
    (content,), _ = numbered(contents["content"])
    # What cannot be read is a copy of nothing.
    copied = np.bincount(content)[content] > 1
    copied &= (contents["content"] != "").to_numpy()
    if not copied.any():
        return
    content[~copied] = -1
    rows = np.flatnonzero(findings.good & (content[images.new] >= 0))
    before = np.flatnonzero(content[images.known] >= 0)
    image = np.r_[images.new[rows], images.known[before]]
    columns = ["labeler", "labeled_at", "label", "answer"]
    every = pd.concat(
        [answers.iloc[rows][columns], known.iloc[before][columns]], ignore_index=True
    )
    (labeler,), _ = numbered(every["labeler"])
    (label,), labels = numbered(every["label"])
    label = np.where((every["answer"] == LABEL).to_numpy(), label, -1)
    unlike = unlike_copies(
        content[image], image, labeler, microseconds(every["labeled_at"]), label
    )
    wrong: BoolArray = np.zeros(len(answers), dtype=np.bool_)
    wrong[rows[unlike[: len(rows)]]] = True
    copies: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for one, number in zip(image[label >= 0], label[label >= 0], strict=True):
        copies[content[one]].append((one, labels[number]))

    def why(row: int) -> str:
        mine = images.new[row]
        image, label = next(one for one in copies[content[mine]] if one[0] != mine)
        return (
            f"the image is a copy of {contents['image_id'].iloc[image]!r}, which is "
            f"labeled {label!r} and not {answers['label'].iloc[row]!r}"
        )

    findings.refuse(wrong, why)
