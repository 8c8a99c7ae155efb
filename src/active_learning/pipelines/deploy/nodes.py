"""Nodes of ``deploy``."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from active_learning.errors import (
    CheckpointError,
    EndpointError,
    ExportError,
    TestSetError,
)
from active_learning.imaging import Decoded, ImageStore
from active_learning.imaging.held_out import decode_held_out
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.deploy.decision import Decision, Parity
from active_learning.pipelines.deploy.gate import BoolArray, flaws, judge
from active_learning.pipelines.deploy.params import DeployParams
from active_learning.schemas import fingerprint
from active_learning.services.deployment import Endpoint, Example, roll_out
from active_learning.services.deployment.registry import Registry
from active_learning.services.deployment.state import EndpointState, Release

if TYPE_CHECKING:
    from active_learning.learning.module import ImageClassifier
    from active_learning.services.scoring.model import InferenceModel
    from active_learning.services.scoring.onnx_classifier import OnnxClassifier

logger = logging.getLogger(__name__)


def export_challenger(
    challenger: Classifier | None,
    endpoint: Endpoint,
    test_set: pd.DataFrame,
    images: ImageStore,
    params: DeployParams,
) -> Decision:
    """Make a release of the challenger, which brings nothing up yet.

    A challenger that was exported before is not exported again. Versions that were up
    are not given twice: after a rollback the challenger gets the next free one.

    Args:
        challenger: As ``train`` left it; ``None`` where it has not.
        endpoint: Takes the release in.
        test_set: ``image_id`` of real images to compare the export on.
        images: Where they are.
        params: Uses ``parity_images``.

    Returns:
        ``pending``; ``unchanged`` where there is nothing to deploy; ``refused`` where
        it was rolled back before, or the export answers otherwise than its checkpoint.

    Raises:
        TestSetError: A test image cannot be read any more.
    """
    state = endpoint.state
    start = Decision(decision="pending", champion=state.champion)
    if challenger is None:
        return start.becomes(
            "unchanged",
            "There is no challenger; 'kedro run --pipelines train' makes one.",
        )
    classifier = cast("ImageClassifier | OnnxClassifier", challenger)
    start = start.becomes(
        "pending", training_set=str(classifier.lineage.get("training_set"))
    )
    known = _exported(classifier, endpoint)
    if known is not None:
        start = start.becomes("pending", challenger=known)
        if state.champion and known.name == state.champion.name:
            version = known.model_version
            return start.becomes(
                "unchanged",
                f"Version {version} is in production already: there is nothing new to "
                "release.",
            )
        if known.name in {release.name for release in state.rolled_back}:
            return start.becomes(
                "refused",
                f"Version {known.model_version} was in production and rolled back. "
                "Train a new challenger on more labels.",
            )
    chosen = _spread(test_set, params.parity_images)
    examples = decode_held_out(images, chosen, classifier.preprocessing)
    try:
        release, parity = _taken_in(classifier, known, endpoint, examples)
    except ExportError as exc:
        return start.becomes("refused", str(exc))
    return start.becomes("pending", challenger=release, parity=parity)


def judge_challenger(
    exported_challenger: Decision,
    champion: Classifier | None,
    endpoint: Endpoint,
    test_set: pd.DataFrame,
    training_set: pd.DataFrame,
    images: ImageStore,
    params: DeployParams,
) -> Decision:
    """Hold the exported challenger against the champion on the frozen test set.

    Args:
        exported_challenger: Judged where it is ``pending``, else passed on.
        champion: The release that serves; ``None`` before the first.
        endpoint: Has the challenger's release.
        test_set: ``image_id``, ``label``, ``content``.
        training_set: What the challenger learned from.
        images: Where the images are.
        params: Uses ``level``, ``tolerance``, ``max_recall_drop``, ``batch_size``.

    Returns:
        ``accepted`` or ``refused`` with every figure.

    Raises:
        TestSetError: There are no test images, or one cannot be read any more.
        CheckpointError: The challenger's release is damaged.
    """
    decision = exported_challenger
    if decision.decision != "pending" or decision.challenger is None:
        return decision
    if test_set.empty:
        raise TestSetError("The frozen test set is empty: nothing can be compared.")
    challenger = _model(endpoint, decision.challenger)
    labels = test_set["label"].tolist()
    verdict = judge(
        _right(challenger, test_set, images, params.batch_size),
        _right(champion, test_set, images, params.batch_size) if champion else None,
        labels,
        params,
    )
    found = flaws(challenger, champion, training_set, test_set)
    accepted = verdict.accepted and not found
    return decision.becomes(
        "accepted" if accepted else "refused",
        *found,
        *verdict.reasons,
        test_set=fingerprint(test_set),
        accuracy=verdict.accuracy,
        recall=verdict.recall,
    )


def register_challenger(
    judged_challenger: Decision,
    endpoint: Endpoint,
    test_set: pd.DataFrame,
    images: ImageStore,
    params: DeployParams,
) -> Decision:
    """Make an accepted challenger a version of the model registry.

    Before any request goes to it: where MLflow is away, the champion goes on.

    Args:
        judged_challenger: Registered where it is ``accepted``, else passed on.
        endpoint: Has the challenger's release.
        test_set: The first image is the version's input example.
        images: Where it is.
        params: Uses ``registered_model``.

    Returns:
        The decision with the version's number, or ``failed`` with the reason.
    """
    decision = judged_challenger
    release = decision.challenger
    if decision.decision != "accepted" or release is None:
        return decision
    example = images.read(test_set["image_id"].iloc[0])
    try:
        version = Registry(params.registered_model).register(
            release, endpoint.folder(release), example
        )
    except EndpointError as exc:
        return decision.becomes("failed", str(exc))
    registered = release.model_copy(update={"registry_version": version})
    return decision.becomes("accepted", challenger=registered)


def roll_out_challenger(
    registered_challenger: Decision,
    endpoint: Endpoint,
    test_set: pd.DataFrame,
    images: ImageStore,
    params: DeployParams,
) -> Decision:
    """Bring an accepted challenger into production, and clear away what is left over.

    Args:
        registered_challenger: Rolled out where it is ``accepted``, else passed on.
        endpoint: Changed.
        test_set: Has the images of the smoke test.
        images: Where they are.
        params: Uses ``smoke_images``, ``traffic_steps``, ``step_s``, ``batch_size``
            and ``keep_releases``.

    Returns:
        ``promoted``, or ``failed`` with the reason and the champion as before.
    """
    decision = registered_challenger
    try:
        with endpoint.exclusive():
            # What a run that was killed has left up.
            endpoint.settle()
            if decision.decision != "accepted" or decision.challenger is None:
                return decision
            _refuse_another_champion(endpoint.state, decision)
            _roll_out(endpoint, decision.challenger, test_set, images, params)
            endpoint.prune(params.keep_releases)
    except EndpointError as exc:
        if decision.decision != "accepted":
            logger.warning("Nothing was cleared away: %s", exc)
            return decision
        return decision.becomes("failed", str(exc))
    return decision.becomes("promoted")


def roll_back_champion(
    endpoint: Endpoint,
    test_set: pd.DataFrame,
    images: ImageStore,
    params: DeployParams,
) -> Decision:
    """Bring the champion before this one back, by the same steps.

    Args:
        endpoint: Changed.
        test_set: Has the images of the smoke test.
        images: Where they are.
        params: As for ``roll_out_challenger``.

    Returns:
        ``rolled_back``, or ``failed`` with the reason and the champion as before.

    Raises:
        EndpointError: There was no champion before this one.
    """
    state = endpoint.state
    if state.champion is None or not state.history:
        raise EndpointError(
            f"There is nothing to go back to: {state.champion and state.champion.name} "
            "is the first release. Deploy a better one instead."
        )
    former = state.history[-1]
    decision = Decision(decision="pending", champion=state.champion, challenger=former)
    try:
        with endpoint.exclusive():
            endpoint.settle()
            _refuse_another_champion(endpoint.state, decision)
            _roll_out(endpoint, former, test_set, images, params, back=True)
            endpoint.prune(params.keep_releases)
    except EndpointError as exc:
        return decision.becomes("failed", str(exc))
    return decision.becomes(
        "rolled_back",
        f"Version {former.model_version} is in production again instead of "
        f"{state.champion.model_version}.",
    )


def record_release(
    rollout: Decision, endpoint: Endpoint, now: datetime, params: DeployParams
) -> dict[str, Any]:
    """Tag the registry's versions as the endpoint says, and write the decision down.

    Args:
        rollout: What became of the challenger.
        endpoint: Says who is champion.
        now: Becomes ``decided_at``.
        params: Uses ``registered_model``.

    Returns:
        ``release``: the fields of ``Decision`` as plain values. ``unfinished`` says
        what could not be tagged.
    """
    unfinished = None
    state = endpoint.state
    if state.champion is not None and state.champion.registry_version is not None:
        try:
            Registry(params.registered_model).tell(state)
        except EndpointError as exc:
            unfinished = str(exc)
    recorded = rollout.becomes(
        rollout.decision, unfinished=unfinished, decided_at=now.isoformat()
    )
    logger.info(
        "%s: %s", recorded.decision.replace("_", " "), " ".join(recorded.reasons)
    )
    release: dict[str, Any] = recorded.model_dump(mode="json")
    return release


def raise_failure(release: dict[str, Any]) -> None:
    """End a run that failed, after its decision was written.

    Raises:
        EndpointError: The decision has failed, or is not finished.
    """
    if release["decision"] == "failed":
        raise EndpointError(
            f"The champion goes on as before. {' '.join(release['reasons'])}"
        )
    if release["unfinished"]:
        raise EndpointError(
            f"The release is {release['decision'].replace('_', ' ')}, and its version "
            f"is not tagged. {release['unfinished']}"
        )


def _exported(
    classifier: ImageClassifier | OnnxClassifier, endpoint: Endpoint
) -> Release | None:
    """The release of the same weights, if it was made before and is whole."""
    from active_learning.services.scoring.export import origin

    last = max(classifier.version, endpoint.state.last_version + 1)
    for version in range(classifier.version, last + 1):
        for folder in endpoint.exports(version):
            try:
                if _alike(origin(folder), classifier):
                    return endpoint.add(folder)
            except CheckpointError as exc:
                logger.warning("%s is not used again: %s", folder.name, exc)
    return None


def _alike(
    one: ImageClassifier | OnnxClassifier, other: ImageClassifier | OnnxClassifier
) -> bool:
    """Whether two are the same model, whatever version they are called."""

    def lineage(classifier: ImageClassifier | OnnxClassifier) -> dict[str, Any]:
        return {**classifier.lineage, "version": None}

    return (
        lineage(one) == lineage(other)
        and one.classes == other.classes
        and one.preprocessing == other.preprocessing
        and _of_the_same_weights(one, other)
    )


def _of_the_same_weights(
    one: ImageClassifier | OnnxClassifier, other: ImageClassifier | OnnxClassifier
) -> bool:
    from active_learning.services.scoring.onnx_classifier import OnnxClassifier

    if isinstance(one, OnnxClassifier) or isinstance(other, OnnxClassifier):
        both = isinstance(one, OnnxClassifier) and isinstance(other, OnnxClassifier)
        return both and one.content == other.content
    import torch

    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in mine.items()
    )


def _taken_in(
    classifier: ImageClassifier | OnnxClassifier,
    known: Release | None,
    endpoint: Endpoint,
    examples: Decoded,
) -> tuple[Release, Parity]:
    from active_learning.services.scoring.export import export
    from active_learning.services.scoring.model import CARD, ModelCard

    if known is None:
        with endpoint.incoming() as folder:
            export(_renumbered(classifier, endpoint.state), examples.pixels, folder)
            known = endpoint.add(folder)
    text = (endpoint.folder(known) / CARD).read_text(encoding="utf-8")
    parity = ModelCard.model_validate_json(text).parity
    return known, Parity.model_validate(parity._asdict())


def _renumbered(
    classifier: ImageClassifier | OnnxClassifier, state: EndpointState
) -> ImageClassifier | OnnxClassifier:
    """The same model under a version that no other was up with."""
    champion = state.champion.model_version if state.champion else 0
    version = classifier.version
    if not champion < version <= state.last_version:
        return classifier
    logger.info(
        "Version %d was given to a model that is gone; this one becomes %d",
        version,
        state.last_version + 1,
    )
    from active_learning.services.scoring.onnx_classifier import OnnxClassifier

    if isinstance(classifier, OnnxClassifier):
        return classifier.renumbered(state.last_version + 1)
    lineage = {**classifier.lineage, "version": state.last_version + 1}
    return classifier.successor(classifier.classes, lineage)


def _model(endpoint: Endpoint, release: Release) -> InferenceModel:
    from active_learning.services.scoring.model import InferenceModel

    return InferenceModel.load(endpoint.folder(release))


def _right(
    model: Classifier, test_set: pd.DataFrame, images: ImageStore, batch_size: int
) -> BoolArray:
    """(N,) true where a model names the class of a test image."""
    decoded = decode_held_out(images, test_set, model.preprocessing)
    said = model.probabilities(decoded.pixels, batch_size, "auto", "Comparing")
    names = np.array(model.classes, dtype=object)[said.argmax(axis=1)]
    right: BoolArray = names == test_set["label"].to_numpy(dtype=object)
    return right


def _spread(test_set: pd.DataFrame, n: int) -> pd.DataFrame:
    """So many rows from all over the test set, which is ordered by folder."""
    rows = np.linspace(0, len(test_set) - 1, min(n, len(test_set)))
    return test_set.iloc[np.unique(rows.astype(int))]


def _refuse_another_champion(state: EndpointState, decision: Decision) -> None:
    there = state.champion.name if state.champion else None
    compared = decision.champion.name if decision.champion else None
    if there != compared:
        raise EndpointError(
            f"{there!r} is in production by now, and the decision was made against "
            f"{compared!r}. Run again."
        )


def _roll_out(
    endpoint: Endpoint,
    release: Release,
    test_set: pd.DataFrame,
    images: ImageStore,
    params: DeployParams,
    back: bool = False,
) -> None:
    try:
        model = _model(endpoint, release)
    except CheckpointError as exc:
        raise EndpointError(f"{release.name!r} cannot be brought up: {exc}") from exc
    chosen = _spread(test_set, params.smoke_images)
    decoded = decode_held_out(images, chosen, model.preprocessing)
    said = model.probabilities(decoded.pixels, params.batch_size, "auto", "")
    examples = [
        Example(name, images.read(name), row)
        for name, row in zip(decoded.image_ids, said, strict=True)
    ]
    roll_out(
        endpoint, release, examples, params.traffic_steps, params.step_s, back=back
    )
