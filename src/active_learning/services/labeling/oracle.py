"""Labelers who know every class, and err as often as they are told to."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from active_learning.acquisition import FloatArray, IntArray
from active_learning.errors import SettingsError
from active_learning.parameters import Parameters
from active_learning.schemas import ANSWERS

StrArray = NDArray[np.object_]


class OracleParams(Parameters):
    """How good labelers are where nobody is asked. ``conf/base`` has the values.

    ``noise`` is the share of wrong classes among those given, ``abstain`` the share of
    answers that give none, ``labelers`` how many answer each request.
    """

    noise: float = Field(ge=0, le=1)
    labelers: PositiveInt
    abstain: float = Field(ge=0, lt=1)
    seed: NonNegativeInt


class Opinions(NamedTuple):
    """N classes, empty where none is given, and the kind of each answer.

    A kind is ``label``, ``skipped`` or ``unclear``.
    """

    labels: StrArray
    answers: StrArray


def give_opinions(
    image_ids: Sequence[str],
    truths: Sequence[str],
    labelers: IntArray,
    classes: Sequence[str],
    params: OracleParams,
) -> Opinions:
    """Answer as labelers do who err independently of each other.

    An answer is a hash of the seed, the image and the labeler: the same at every look,
    in any order, beside any others. A wrong class is any other with equal probability,
    and who errs at one ``noise`` errs at every higher one too.

    Args:
        image_ids: N images.
        truths: N classes.
        labelers: (N,) which labeler looks, counted from 0.
        classes: What an answer can be.
        params: Uses ``noise``, ``abstain`` and ``seed``.

    Raises:
        SettingsError: There is noise, and no second class to take for the first.
    """
    labels = np.asarray(truths, dtype=object)
    answers = np.full(len(labels), "label", dtype=object)
    if not params.noise and not params.abstain:
        return Opinions(labels, answers)
    if params.noise and len(classes) < 2:
        raise SettingsError(
            f"oracle.noise is {params.noise}, and {list(classes)} are all the classes "
            "there are: nothing can be mistaken for another. Set oracle.noise to 0."
        )
    chance, which, doubt = _draws(image_ids, labelers, params.seed)
    names = np.asarray(classes, dtype=object)
    places = {name: place for place, name in enumerate(classes)}
    right = np.array([places[name] for name in labels], dtype=np.int64)
    further = 1 + (which * (len(names) - 1)).astype(np.int64)
    wrong = chance < params.noise
    labels = np.where(wrong, names[(right + further) % len(names)], labels)
    silent = doubt < params.abstain
    answers[silent] = np.where(doubt[silent] < params.abstain / 2, "skipped", "unclear")
    return Opinions(np.where(silent, "", labels), answers)


def answer(
    requests: pd.DataFrame, classes: Sequence[str], params: OracleParams
) -> pd.DataFrame:
    """Let ``labelers`` answer each request, others than those who saw its image before.

    Args:
        requests: ``image_id``, ``request_id``, ``label`` (the true class),
            ``labeled_at`` and ``n_before``, how many have looked at the image before.
        classes: What an answer can be.
        params: Uses all fields.

    Returns:
        The answers in the columns of ``schemas.ANSWERS``, request by request. The
        first labeler is called ``oracle``, the others ``oracle-2`` and so on.
    """
    asked = requests.loc[requests.index.repeat(params.labelers)]
    order = np.tile(np.arange(params.labelers), len(requests))
    labelers = asked["n_before"].to_numpy(dtype=np.int64) + order
    opinions = give_opinions(
        asked["image_id"].tolist(), asked["label"].tolist(), labelers, classes, params
    )
    names = [f"oracle-{number + 1}" if number else "oracle" for number in labelers]
    answers = pd.DataFrame(
        {
            "reference": asked["image_id"].to_numpy(dtype=object),
            "label": opinions.labels,
            "answer": opinions.answers,
            "labeler": np.array(names, dtype=object),
            "labeled_at": asked["labeled_at"].dt.as_unit("us").array,
            "source": "oracle",
            "request_id": asked["request_id"].to_numpy(dtype=object),
            "line": np.zeros(len(asked), dtype=np.int64),
            "reason": "",
        }
    )
    ordered: pd.DataFrame = answers[ANSWERS.names]
    return ordered


def _draws(image_ids: Sequence[str], labelers: IntArray, seed: int) -> FloatArray:
    """Three rows of (N,) uniform numbers in [0, 1), by image and labeler."""
    salt = f"\0{seed}\0oracle".encode()
    digests = b"".join(
        blake2b(f"{name}\0{labeler}".encode() + salt, digest_size=24).digest()
        for name, labeler in zip(image_ids, labelers, strict=True)
    )
    words = np.frombuffer(digests, dtype=">u8").reshape(-1, 3).T
    return (words >> np.uint64(11)) / 2.0**53
