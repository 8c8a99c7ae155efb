"""What a request's body asks for, or why it asks for nothing.

Four forms: the bytes of an image; JSON with one in base64; JSON with the ``image_id``
of one in the store; JSON with a list of either. ``entry/swagger3.json`` describes them.
"""

import json
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from active_learning.errors import ImageIdError, RequestError
from active_learning.imaging.ids import check_image_ids
from active_learning.services.scoring.settings import Limits

_JSON = "application/json"
_BYTES = "application/octet-stream"

_LONGEST_IMAGE_ID = 1024
_PREDICTION_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z"


class Asked(NamedTuple):
    """One image to score.

    Attributes:
        content: The file's bytes; ``None`` for an image of the store.
        image_id: Its name in the store; ``None`` for bytes.
        prediction_id: The caller's own, which makes a retry count once.
    """

    content: bytes | None
    image_id: str | None
    prediction_id: str | None


class Question(NamedTuple):
    """What one request asks; ``several`` are answered as a list, even if it is one."""

    images: list[Asked]
    several: bool


class _Image(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    image: str | None = None
    image_id: str | None = Field(None, max_length=_LONGEST_IMAGE_ID)
    prediction_id: str | None = Field(None, max_length=128)


class _Images(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[_Image] = Field(min_length=1)


def read_question(
    mimetype: str, body: bytes, prediction_id: str | None, limits: Limits
) -> Question:
    """Understand a body.

    Args:
        mimetype: Of the request's ``Content-Type``, in lower case, without parameters.
        body: At most ``limits.body_bytes``.
        prediction_id: What the header ``x-prediction-id`` holds, for a single image.
        limits: Uses ``images``.

    Raises:
        RequestError: 400 malformed, 413 too many images, 415 another type.
    """
    if mimetype == _JSON:
        question = _from_json(body, limits)
    elif mimetype.startswith("image/") or mimetype == _BYTES:
        question = Question([Asked(body, None, None)], several=False)
    else:
        raise RequestError(
            415,
            f"The Content-Type is {mimetype[:100]!r}. Send an image as 'image/png', "
            f"'image/jpeg' and so on, or as {_BYTES!r}; or send {_JSON!r}.",
        )
    if not body:
        raise RequestError(400, "The body is empty. Send an image, or JSON.")
    return _identified(question, prediction_id)


def _from_json(body: bytes, limits: Limits) -> Question:
    said = _loads(body)
    if not isinstance(said, dict):
        raise RequestError(
            400,
            f"The body is a JSON {type(said).__name__}, not an object. Give "
            "{'image': base64}, {'image_id': name} or {'images': [...]}.",
        )
    several = "images" in said
    if several and isinstance(said["images"], list):
        n_images = len(said["images"])
        if n_images > limits.images:
            raise RequestError(
                413,
                f"The body asks for {n_images} images, more than the "
                f"{limits.images} of one request. Send several.",
            )
    try:
        images = (
            _Images.model_validate(said).images
            if several
            else [_Image.model_validate(said)]
        )
    except ValidationError as exc:
        _refuse_shape(exc)
    asked = [
        _asked(image, f"images[{number}]" if several else "The body")
        for number, image in enumerate(images)
    ]
    return Question(asked, several)


def _loads(body: bytes) -> Any:
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_once_each,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as exc:
        raise RequestError(
            400, f"The body is not JSON in UTF-8: byte {exc.start} is no character."
        ) from exc
    except RecursionError as exc:
        raise RequestError(400, "The body is JSON that is nested too deep.") from exc
    except ValueError as exc:
        raise RequestError(400, f"The body is not JSON: {str(exc)[:200]}.") from exc


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestError(400, "The body names a key twice in one JSON object.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(400, f"The body holds {name}, which is no JSON.")


def _refuse_shape(exc: ValidationError) -> NoReturn:
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    where = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part[:50]}"
        for part in errors[0]["loc"]
    ).lstrip(".")
    raise RequestError(
        400,
        f"The body has {len(errors)} flaws; the first is {where!a}: "
        f"{errors[0]['msg']}. Known are 'image' (base64), 'image_id' and "
        "'prediction_id', or 'images', a list of those.",
    ) from exc


def _asked(image: _Image, where: str) -> Asked:
    if (image.image is None) == (image.image_id is None):
        both = "both 'image' and" if image.image is not None else "neither 'image' nor"
        raise RequestError(400, f"{where} has {both} 'image_id'. Give one of the two.")
    prediction_id = image.prediction_id
    if prediction_id is not None:
        _check_prediction_id(prediction_id)
    if image.image_id is not None:
        try:
            check_image_ids([image.image_id])
        except ImageIdError as exc:
            raise RequestError(400, f"{where}: {exc}") from exc
        return Asked(None, image.image_id, prediction_id)
    try:
        content = b64decode(image.image or "", validate=True)
    except (Base64Error, ValueError) as exc:
        raise RequestError(
            400,
            f"{where} has an 'image' that is not base64: {exc}. It is one line of "
            "A-Z, a-z, 0-9, + and /, without a 'data:' in front.",
        ) from exc
    if not content:
        raise RequestError(400, f"{where} has an 'image' of no bytes.")
    return Asked(content, None, prediction_id)


def _identified(question: Question, header: str | None) -> Question:
    if header is not None:
        _check_prediction_id(header)
        if question.several:
            raise RequestError(
                400,
                "The header x-prediction-id names one prediction and the body asks for "
                "a list. Give each image a 'prediction_id' of its own.",
            )
        own = question.images[0].prediction_id
        if own not in (None, header):
            raise RequestError(
                400, "The header x-prediction-id and the body's 'prediction_id' differ."
            )
        named = question.images[0]._replace(prediction_id=header)
        question = question._replace(images=[named])
    given = [asked.prediction_id for asked in question.images if asked.prediction_id]
    if len(set(given)) < len(given):
        raise RequestError(
            400,
            f"{len(given) - len(set(given))} of {len(given)} images repeat a "
            "'prediction_id', and a prediction counts once. Give each its own.",
        )
    return question


def _check_prediction_id(prediction_id: str) -> None:
    if not re.match(_PREDICTION_ID, prediction_id):
        raise RequestError(
            400,
            f"{prediction_id[:150]!a} is no prediction_id: it has 1 to 128 characters "
            "of A-Z, a-z, 0-9, '.', '_', ':' and '-', the first a letter or digit.",
        )
