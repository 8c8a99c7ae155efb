"""The scoring service: a request becomes an answer, and the answer is collected.

One service lives in each process of the server; ``start`` makes it and ``current``
finds it.
"""

import atexit
import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from flask import Request, Response
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from active_learning.acquisition import FloatArray
from active_learning.errors import (
    ActiveLearningError,
    ImageError,
    ImageIdError,
    NoImagesError,
    RequestError,
    TelemetryError,
)
from active_learning.imaging import ImageStore, UInt8Array
from active_learning.imaging.archive import ImageArchive
from active_learning.imaging.decode import decode, reader_of
from active_learning.services.scoring import (
    COLLECT_HEADER,
    DEPLOYMENT_HEADER,
    PREDICTION_ID_HEADER,
)
from active_learning.services.scoring.bodies import Asked, Question, read_question
from active_learning.services.scoring.model import InferenceModel
from active_learning.services.scoring.releases import (
    EndpointReleases,
    MountedRelease,
    Releases,
)
from active_learning.services.scoring.settings import (
    Limits,
    ServingSettings,
    model_folder,
    settings_from,
)
from active_learning.services.telemetry import connect_sink
from active_learning.services.telemetry.collector import Collector, Prediction
from active_learning.services.telemetry.spool import Spool

logger = logging.getLogger(__name__)

# So long a request may wait for the thread that delivers; Python's own 5 ms are several
# requests.
_SWITCH_S = 0.0005


class _Scored(NamedTuple):
    """One image and what a model said of it."""

    asked: Asked
    probabilities: FloatArray


class ScoringService:
    """Answers requests by the models that are up, and keeps what was answered.

    Args:
        releases: Models that can answer.
        store: Images that requests name; where ``archive`` keeps those that they send.
        limits: What a request may ask for.
        collector: Takes predictions; ``None`` keeps nothing.
        archive: Names images that came with requests; the collector takes them there.
        flush_s: So long ``close`` may deliver what was collected.
    """

    def __init__(
        self,
        releases: Releases,
        store: str,
        limits: Limits,
        collector: Collector | None,
        archive: ImageArchive,
        flush_s: float,
    ) -> None:
        """Hold the parts."""
        self._releases = releases
        self._store = store
        self._limits = limits
        self._collector = collector
        self._archive = archive
        self._flush_s = flush_s
        self._n_lost = 0
        self._losing = False
        self._counting = threading.Lock()

    @classmethod
    def of(cls, settings: ServingSettings, mounted: Path | None) -> "ScoringService":
        """Load what is to answer.

        Args:
            settings: How the service works.
            mounted: A release that takes the endpoint's place.

        Raises:
            CheckpointError: The mounted release cannot answer.
            UnknownNameError: No telemetry has that name.
        """
        releases: Releases
        if mounted is not None:
            releases = MountedRelease(mounted, settings.model_threads)
        else:
            releases = EndpointReleases(
                Path(settings.endpoint).absolute(),
                settings.model_threads,
                poll_s=settings.poll_s,
                retry_s=settings.retry_s,
                wait_s=settings.deployment_wait_s,
            ).watch()
        archive = ImageArchive(
            settings.images,
            prefix=settings.archive,
            power_cut_safe=settings.spool.power_cut_safe,
        )
        return cls(
            releases,
            settings.images,
            settings.limits,
            _collector(settings, archive) if settings.collect else None,
            archive,
            settings.flush_s,
        )

    def respond(self, request: Request) -> Response:
        """Answer ``POST /score``; what it takes and gives is in the OpenAPI document.

        What the caller did wrong is a 4xx with the reason, in JSON. An answer that
        could not be collected is an answer all the same, and says so.
        """
        try:
            question = self._question(request)
            served = self._releases.serving(request.headers.get(DEPLOYMENT_HEADER))
            keep = request.headers.get(COLLECT_HEADER, "true").lower() != "false"
            predictions = self._answers(question.images, served.model, keep)
        except RequestError as exc:
            return refusal(exc.status, str(exc))
        said = {"predictions": predictions} if question.several else predictions[0]
        response = Response(json.dumps(said), mimetype="application/json")
        if served.deployment is not None:
            response.headers[DEPLOYMENT_HEADER] = served.deployment
        return response

    def why_not_ready(self) -> str | None:
        """Why no request can be answered; ``None`` when one can."""
        return self._releases.why_not_ready()

    def health(self) -> dict[str, Any]:
        """What is loaded and how collecting goes."""
        reason = self.why_not_ready()
        return {
            "ready": reason is None,
            "reason": reason,
            "pid": os.getpid(),
            **self._releases.status(),
            "collector": self._collecting(),
            "not_collected": self._n_lost,
        }

    def close(self) -> None:
        """Stop, and deliver what was collected within the time for it."""
        self._releases.close()
        if self._collector is None:
            return
        try:
            self._collector.close(self._flush_s)
        except TelemetryError as exc:
            logger.error("What was collected cannot be delivered now: %s", exc)

    def _question(self, request: Request) -> Question:
        if request.method != "POST":
            raise RequestError(405, "Ask with POST: an image, or JSON.")
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise RequestError(
                415, f"The Content-Encoding is {encoding[:50]!a}. Send the body as is."
            )
        return read_question(
            request.mimetype,
            self._body(request),
            request.headers.get(PREDICTION_ID_HEADER),
            self._limits,
        )

    def _body(self, request: Request) -> bytes:
        most = self._limits.body_bytes
        # One more: a body without a length is cut there, and not refused.
        request.max_content_length = most + 1
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge as exc:
            raise self._too_large() from exc
        except HTTPException as exc:
            raise RequestError(400, "The body was cut off on its way.") from exc
        if len(body) > most:
            raise self._too_large()
        return body

    def _too_large(self) -> RequestError:
        most = self._limits.body_bytes
        return RequestError(
            413, f"The body has more than {most:,} bytes, the most of one."
        )

    def _answers(
        self, images: Sequence[Asked], model: InferenceModel, keep: bool
    ) -> list[dict[str, Any]]:
        several = len(images) > 1
        decoded = []
        for number, asked in enumerate(images):
            try:
                decoded.append(self._decoded(asked, model))
            except RequestError as exc:
                if not several:
                    raise
                raise RequestError(exc.status, f"images[{number}]: {exc}") from exc
        probabilities = model.answer(np.stack(decoded))
        return [
            self._answer(_Scored(asked, row), model, keep)
            for asked, row in zip(images, probabilities, strict=True)
        ]

    def _decoded(self, asked: Asked, model: InferenceModel) -> UInt8Array:
        if asked.content is not None:
            content = asked.content
        else:
            content = self._read(asked.image_id or "")
        try:
            reader_of(content)
        except ImageError as exc:
            raise RequestError(415, f"{_whose(asked)}: {exc}.") from exc
        try:
            return decode(content, model.preprocessing, self._limits.max_pixels)
        except ImageError as exc:
            status = 413 if "max_pixels" in str(exc) else 422
            raise RequestError(status, f"{_whose(asked)}: {exc}.") from exc

    def _read(self, image_id: str) -> bytes:
        """From the store, or from those that were sent and are on their way there."""
        try:
            return self._from_store(image_id)
        except RequestError:
            sent = image_id.startswith(f"{self._archive.prefix}/")
            if self._collector is None or not sent:
                raise
        waiting = self._collector.waiting_image(image_id)
        # It may have got to the store meanwhile.
        return self._from_store(image_id) if waiting is None else waiting

    def _from_store(self, image_id: str) -> bytes:
        # A store is a snapshot, and remembers each name that it was asked for.
        store = ImageStore(self._store, cache=None, max_pixels=self._limits.max_pixels)
        try:
            return store.read(image_id)
        except ImageIdError as exc:
            raise RequestError(
                400, f"image_id={image_id!r} leaves the image store by a link."
            ) from exc
        except (ImageError, NoImagesError) as exc:
            raise RequestError(
                404, f"image_id={image_id!r} cannot be read from the image store."
            ) from exc

    def _answer(
        self, scored: _Scored, model: InferenceModel, keep: bool
    ) -> dict[str, Any]:
        asked, row = scored
        prediction_id = asked.prediction_id or uuid4().hex
        image_id, collected = asked.image_id, False
        if keep and self._collector is not None:
            image_id, collected = self._collect(
                scored, model, prediction_id, self._collector
            )
        said = {
            "label": model.classes[int(row.argmax())],
            "probabilities": dict(zip(model.classes, row.tolist(), strict=True)),
            "model_name": model.model_name,
            "model_version": model.version,
            "prediction_id": prediction_id,
            "collected": collected,
        }
        return said if image_id is None else {**said, "image_id": image_id}

    def _collect(
        self,
        scored: _Scored,
        model: InferenceModel,
        prediction_id: str,
        collector: Collector,
    ) -> tuple[str | None, bool]:
        """The image's name, if it has one, and whether the prediction was kept."""
        asked = scored.asked
        image_id, image = asked.image_id, None
        try:
            if asked.content is not None:
                image = self._archive.named(asked.content, decoded=True)
                image_id = image.image_id
            prediction = Prediction.of(
                asked.image_id,
                scored.probabilities.tolist(),
                model.classes,
                model.model_name,
                model.version,
                source="online",
                scored_at=datetime.now(UTC),
                prediction_id=prediction_id,
            )
            collector.collect(prediction, image)
        except (ActiveLearningError, OSError) as exc:
            self._note_lost(exc)
            return image_id, False
        if self._losing:
            self._losing = False
            logger.warning("Answers are collected again; %d were not", self._n_lost)
        return image_id, True

    def _note_lost(self, exc: Exception) -> None:
        with self._counting:
            self._n_lost += 1
            first, self._losing = not self._losing, True
        if first:
            logger.error("Answers go on and are not collected: %s", exc)

    def _collecting(self) -> dict[str, Any] | None:
        if self._collector is None:
            return None
        try:
            return dict(self._collector.status())
        except ActiveLearningError as exc:
            return {"error": str(exc)}


def refusal(status: int, reason: str) -> Response:
    """What a caller is told who gets no answer."""
    body = json.dumps({"error": reason})
    response = Response(body, status, mimetype="application/json")
    if status == 405:
        response.headers["Allow"] = "POST"
    elif status == 503:
        response.headers["Retry-After"] = "1"
    return response


_current: ScoringService | None = None


def start() -> None:
    """Make the service of this process, as its environment says.

    Raises:
        SettingsError: The environment does not say how.
        CheckpointError: The mounted release cannot answer.
    """
    global _current  # noqa: PLW0603  # the server calls init() and run() apart
    stop()
    sys.setswitchinterval(_SWITCH_S)
    _current = ScoringService.of(settings_from(os.environ), model_folder(os.environ))
    atexit.register(stop)


def current() -> ScoringService:
    """The service of this process.

    Raises:
        RequestError: There is none yet.
    """
    if _current is None:
        raise RequestError(503, "The service has not started.")
    return _current


def stop() -> None:
    """Close the service of this process, if there is one."""
    global _current
    service, _current = _current, None
    atexit.unregister(stop)
    if service is not None:
        service.close()


def _collector(settings: ServingSettings, archive: ImageArchive) -> Collector:
    spool = Spool(
        settings.spool.path,
        settings.spool.max_rows,
        settings.spool.power_cut_safe,
    )
    sink = connect_sink(settings.telemetry.backend, settings.telemetry.database)
    collector = Collector(spool, sink, settings.collector, archive)
    # What a process that was killed had acknowledged waits in the spool.
    collector.start()
    return collector


def _whose(asked: Asked) -> str:
    return "The image" if asked.image_id is None else f"image_id={asked.image_id!r}"
