"""A challenger is trained on every label, on no test image, and measured alike."""

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from tests.test_parameters import configured

from active_learning.errors import LabelsError, TestSetError
from active_learning.imaging import ImageStore
from active_learning.learning.checkpoint import load_classifier, save_classifier
from active_learning.learning.module import ImageClassifier
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.train.nodes import evaluate, train_challenger
from active_learning.pipelines.train.params import TrainParams
from active_learning.schemas import LABELS, MANIFEST, empty_frame, fingerprint

NO_TESTS = empty_frame(MANIFEST)


def params(**changes: Any) -> TrainParams:
    train = configured("train", **changes)
    train["preprocessing"] |= {"height": 8, "width": 8}
    train["recipe"] |= {"min_steps": 2, "min_epochs": 1}
    train["hardware"]["accelerator"] = "cpu"
    return TrainParams.model_validate(train)


def training_set(store: ImageStore, **labels: str) -> pd.DataFrame:
    """One label for each image of the store."""
    names = [f"{name}.png" for name in labels]
    frame = empty_frame(LABELS).reindex(range(len(names)))
    return frame.assign(
        image_id=names,
        label=list(labels.values()),
        batch_id="monday",
        content=store.fingerprints(names),
    )


def manifest(store: ImageStore, **labels: str) -> pd.DataFrame:
    return training_set(store, **labels)[MANIFEST.names]


def test_a_challenger_says_where_it_came_from(store: ImageStore) -> None:
    labels = training_set(store, a="dark", b="dark", e="light", f="light")

    first = train_challenger(
        labels.iloc[[0, 3]],
        store,
        None,
        NO_TESTS,
        params(),
    )
    second = train_challenger(labels, store, first, NO_TESTS, params())

    assert (first.version, second.version) == (1, 2)
    assert first.classes == second.classes == ("dark", "light")
    own = {"labels", "settings"}
    assert {k: v for k, v in second.lineage.items() if k not in own} == {
        "version": 2,
        "parent": 1,
        "n_labels": 4,
        "training_set": fingerprint(labels),
        "batches": ["monday"],
    }


def models(store: ImageStore) -> tuple[pd.DataFrame, Classifier]:
    """Four labels and the champion that has learned from them."""
    labels = training_set(store, a="dark", b="dark", e="light", f="light")
    return labels, train_challenger(labels, store, None, NO_TESTS, params())


def test_nothing_new_trains_nothing_and_says_what_is_missing(
    store: ImageStore, caplog: pytest.LogCaptureFixture
) -> None:
    labels, champion = models(store)

    with caplog.at_level("INFO", "active_learning"):
        challenger = train_challenger(
            labels[::-1], store, champion, NO_TESTS, params(min_new_labels=1), champion
        )

    assert challenger is champion
    assert "Nothing was trained: since version 1, which is in production" in caplog.text
    assert "0 labels were added, 0 changed and 0 withdrawn" in caplog.text
    assert "train.min_new_labels waits for 1" in caplog.text
    assert "--params train.min_new_labels=0" in caplog.text


@pytest.mark.parametrize(
    "now",
    [
        {"a": "dark", "b": "dark", "e": "light", "f": "light", "c": "dark"},
        {"a": "dark", "b": "light", "e": "light", "f": "light"},
        {"a": "dark", "e": "light", "f": "light"},
    ],
    ids=["added", "changed", "withdrawn"],
)
def test_a_label_counts_once_whatever_became_of_it(
    store: ImageStore, now: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    _, champion = models(store)
    labels = training_set(store, **now)

    enough = train_challenger(
        labels, store, champion, NO_TESTS, params(min_new_labels=1)
    )
    with caplog.at_level("INFO", "active_learning"):
        few = train_challenger(
            labels, store, champion, NO_TESTS, params(min_new_labels=2)
        )

    assert (enough.version, enough.lineage["training_set"]) == (2, fingerprint(labels))
    assert few is champion
    (said,) = [r.getMessage() for r in caplog.records if "trained:" in r.getMessage()]
    counts = [
        int(number) for number in re.findall(r"(\d) (?:labels|changed|withdrawn)", said)
    ]
    assert sorted(map(int, counts)) == [0, 0, 1]


def test_no_label_has_to_wait_for_the_first_model(store: ImageStore) -> None:
    labels = training_set(store, a="dark", f="light")

    first = train_challenger(labels, store, None, NO_TESTS, params(min_new_labels=100))

    assert first.version == 1


def test_zero_trains_though_nothing_is_new(store: ImageStore) -> None:
    labels, champion = models(store)

    again = train_challenger(
        labels, store, champion, NO_TESTS, params(min_new_labels=0), champion
    )

    assert again.version == 2


def test_a_challenger_that_nobody_deployed_is_kept_and_not_trained_again(
    store: ImageStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, champion = models(store)
    labels = training_set(store, a="dark", b="light", f="light")
    save_classifier(
        train_challenger(labels, store, champion, NO_TESTS, params()),
        tmp_path / "challenger.ckpt",
    )
    left = load_classifier(tmp_path / "challenger.ckpt")

    with caplog.at_level("INFO", "active_learning"):
        kept = train_challenger(labels, store, champion, NO_TESTS, params(), left)

    assert kept is left
    assert "version 2 has learned from these 3 labels by the same settings" in (
        caplog.text
    )


@pytest.mark.parametrize("other", ["labels", "settings", "champion"])
def test_a_challenger_is_kept_only_if_training_would_repeat_it(
    store: ImageStore, other: str
) -> None:
    _, champion = models(store)
    labels = training_set(store, a="dark", b="light", f="light")
    left = train_challenger(labels, store, champion, NO_TESTS, params())
    more = training_set(store, a="dark", b="light", c="dark", f="light")
    trained = train_challenger(
        more if other == "labels" else labels,
        store,
        left if other == "champion" else champion,
        NO_TESTS,
        params(seed=1 if other == "settings" else params().seed, min_new_labels=1),
        left,
    )

    if other == "champion":  # it has become the champion, and nothing is new to it
        assert trained is left
    else:
        assert trained is not left
        assert trained.lineage != left.lineage


def test_a_champion_that_did_not_note_its_labels_is_trained_on(
    store: ImageStore,
) -> None:
    labels, champion = models(store)
    more = training_set(store, a="dark", b="dark", c="dark", e="light", f="light")
    bare = {k: v for k, v in champion.lineage.items() if k != "labels"}
    old = cast("ImageClassifier", champion).successor(champion.classes, bare)

    trained = train_challenger(more, store, old, NO_TESTS, params(min_new_labels=1))
    same = train_challenger(labels, store, old, NO_TESTS, params(min_new_labels=1))

    assert trained.version == 2
    assert same is old


def test_no_labels_at_all_are_nothing_to_learn_from(store: ImageStore) -> None:
    labels, champion = models(store)

    with pytest.raises(LabelsError, match="0 labels"):
        train_challenger(labels[:0], store, champion, NO_TESTS, params())


def test_a_new_label_comes_after_the_champions(store: ImageStore) -> None:
    first = train_challenger(
        training_set(store, a="m", f="z"), store, None, NO_TESTS, params()
    )

    second = train_challenger(
        training_set(store, a="m", b="a", f="z"), store, first, NO_TESTS, params()
    )

    assert second.classes == ("m", "z", "a")


def test_a_copy_of_a_test_image_is_never_trained_on(store: ImageStore) -> None:
    labels = training_set(store, a="dark", f="light")
    tests = manifest(store, a="dark").assign(image_id="elsewhere.png")

    with pytest.raises(TestSetError, match=r"1 of 2 .*'a\.png'"):
        train_challenger(labels, store, None, tests, params())


@pytest.mark.parametrize("labels", [{}, {"a": "dark"}, {"a": "dark", "b": "dark"}])
def test_one_class_is_no_classifier(store: ImageStore, labels: dict[str, str]) -> None:
    with pytest.raises(LabelsError, match="two or more"):
        train_challenger(training_set(store, **labels), store, None, NO_TESTS, params())


def test_an_image_that_went_bad_is_left_out_and_named(
    store: ImageStore, caplog: pytest.LogCaptureFixture
) -> None:
    labels = training_set(store, a="dark", b="dark", f="light")
    (Path(store.root) / "b.png").write_bytes(b"no image any more")
    seen_now = ImageStore(store.root, cache=None, max_pixels=10_000)

    challenger = train_challenger(labels, seen_now, None, NO_TESTS, params())

    assert challenger.lineage["n_labels"] == 3
    assert "1 of 3 labeled images cannot be read" in caplog.text
    assert "b.png" in caplog.text


def test_each_version_draws_afresh_and_a_retry_draws_alike(store: ImageStore) -> None:
    labels = training_set(store, a="dark", b="dark", e="light", f="light")
    pixels = store.pixels(["a.png", "f.png"], params().preprocessing).pixels

    def probabilities(seed: int) -> Any:
        model = train_challenger(labels, store, None, NO_TESTS, params(seed=seed))
        return model.probabilities(pixels, 2, "cpu", "")

    np.testing.assert_array_equal(probabilities(1), probabilities(1))
    assert (probabilities(1) != probabilities(2)).any()


def test_an_evaluation_names_what_was_measured_on_what(store: ImageStore) -> None:
    labels = training_set(store, a="dark", f="light")
    tests = manifest(store, b="dark", e="light", d="gray")
    model = train_challenger(labels, store, None, tests, params())

    figures = evaluate(model, tests, store, params())

    assert figures["n_test"] == 3
    assert figures["n_labels"] == 2
    assert figures["training_set"] == fingerprint(labels)
    assert figures["settings"] == params().fingerprint
    assert figures["test_set"] == fingerprint(tests)
    # A class the model does not know is a class it misses.
    assert figures["recall"]["gray"] == 0
    assert figures["accuracy"] <= 2 / 3


def test_without_a_champion_there_is_nothing_to_measure(store: ImageStore) -> None:
    assert evaluate(None, NO_TESTS, store, params())["accuracy"] is None


def test_a_test_image_that_went_bad_stops_the_measurement(store: ImageStore) -> None:
    labels = training_set(store, a="dark", f="light")
    tests = manifest(store, b="dark")
    model = train_challenger(labels, store, None, tests, params())
    (Path(store.root) / "b.png").write_bytes(b"no image any more")
    seen_now = ImageStore(store.root, cache=None, max_pixels=10_000)

    with pytest.raises(TestSetError, match=r"1 of 1 .*'b\.png'"):
        evaluate(model, tests, seen_now, params())
