"""What comes back is learned from, rejected with a reason, or known already."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from active_learning.datasets.snapshot_dataset import SnapshotDataset
from active_learning.imaging import ImageStore
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.pipelines.label_ingest.pipeline import create_pipeline
from active_learning.schemas import (
    LABEL_REQUESTS,
    LABELS,
    MANIFEST,
    REJECTED_LABELS,
    check_training_set,
    empty_frame,
    to_arrow,
)

NOON = "2000-01-01T12:00:00Z"
LATER = "2000-01-01T13:00:00Z"
SETTINGS: dict[str, Any] = {
    "classes": None,
    "new_classes": "allow",
    "map": {},
    "unsolicited": "accept",
    "clock_skew_s": 60,
    "consensus": {
        "min_agreement": 0.6,
        "disagreement": "hold_out",
        "min_labelers": 3,
        "min_images": 4,
        "min_quality": 0.5,
        "max_answers": 5,
    },
    "suspected": "second_opinion",
    "suspicion": {"min_labels": 4, "min_confidence": 0.8},
    "train_on_audits": True,
}
NO_PROBABILITIES = pd.DataFrame(
    columns=[
        *("image_id", "label", "classes", "probabilities"),
        *("model_name", "model_version"),
    ]
)


def answer(image: str, label: str = "", **changed: Any) -> dict[str, Any]:
    """One row of an export, by ann at noon; without a label it is skipped."""
    return {
        "reference": f"{image}.png",
        "label": label,
        "answer": "label" if label else "skipped",
        "labeler": "ann",
        "labeled_at": NOON,
        "source": "csv",
        "line": 2,
        **changed,
    }


def export(*answers: dict[str, Any], **labels: str) -> pd.DataFrame:
    """Rows as they are, then a label for each image."""
    every = [*answers, *(answer(name, label) for name, label in labels.items())]
    rows = pd.DataFrame(every).assign(line=range(2, len(every) + 2))
    return rows.assign(labeled_at=pd.to_datetime(rows["labeled_at"], utc=True))


def request(image: str, **changed: Any) -> dict[str, Any]:
    return {
        "request_id": f"for {image}",
        "image_id": f"{image}.png",
        "round": 1,
        "strategy": "margin",
        "utility": 0.5,
        "rank": 1,
        "propensity": 1.0,
        "population": 100,
        "audit": False,
        "model_name": "small_cnn",
        "model_version": 2,
        "requested_at": pd.Timestamp("2000-01-01T11:00:00Z"),
        **changed,
    }


def requests(*rows: dict[str, Any]) -> pd.DataFrame:
    frame: pd.DataFrame = to_arrow(pd.DataFrame(rows), LABEL_REQUESTS).to_pandas()
    return frame


def said(**cat: float) -> pd.DataFrame:
    """What version 2 said before: the probability that each image is a cat."""
    rows = [
        {
            "image_id": f"{name}.png",
            "label": "cat" if p > 0.5 else "dog",
            "classes": np.array(["cat", "dog"], dtype=object),
            "probabilities": np.array([p, 1 - p]),
            "model_name": "small_cnn",
            "model_version": 2,
        }
        for name, p in cat.items()
    ]
    return pd.DataFrame(rows)


class Ingesting:
    """The pipeline, run again and again on tables that grow."""

    def __init__(self, images: ImageStore) -> None:
        self.images = images
        self.requests = empty_frame(LABEL_REQUESTS)
        self.test_set = empty_frame(MANIFEST)
        self.probabilities = NO_PROBABILITIES
        self.settings = SETTINGS
        self.known = empty_frame(LABELS)
        self.past = empty_frame(REJECTED_LABELS)
        self.day = 2
        self.disputes = SnapshotDataset(
            schema="DISPUTED_LABELS", filepath=f"{images.root}.disputes.parquet"
        )

    def __call__(
        self, exports: Mapping[str, pd.DataFrame] | pd.DataFrame, **settings: Any
    ) -> dict[str, Any]:
        if isinstance(exports, pd.DataFrame):
            exports = {"monday.csv": exports}
        now = datetime(2000, 1, self.day, tzinfo=UTC)
        params = LabelIngestParams.model_validate({**self.settings, **settings})
        inputs = {
            "label_exports": dict(exports),
            "label_requests": self.requests,
            "known_labels": self.known,
            "past_rejections": self.past,
            "test_set": self.test_set,
            "images": self.images,
            "now": now,
            "predictions@asked": self.probabilities,
            "params:label_ingest": params,
        }
        names = (
            *("labels", "rejected_labels", "disputed_labels"),
            *("training_set", "ingest_report"),
        )
        outputs: dict[str, Any] = {name: MemoryDataset() for name in names}
        outputs["disputed_labels"] = self.disputes
        given = {
            name: MemoryDataset(value, copy_mode="assign")
            for name, value in inputs.items()
        }
        catalog = DataCatalog({**given, **outputs})
        SequentialRunner().run(create_pipeline(), catalog)
        run = {name: catalog.load(name) for name in names}
        self.known = appended(self.known, run["labels"], LABELS)
        self.past = appended(self.past, run["rejected_labels"], REJECTED_LABELS)
        self.day += 1
        check_training_set(run["training_set"])
        json.dumps(run["ingest_report"])
        return run


def appended(table: pd.DataFrame, rows: pd.DataFrame, schema: Any) -> pd.DataFrame:
    """As a table does: through its file's types."""
    frames = [frame for frame in (table, rows) if len(frame)]
    every = pd.concat(frames, ignore_index=True) if frames else table
    frame: pd.DataFrame = to_arrow(every, schema).to_pandas()
    return frame


@pytest.fixture
def ingest(store: ImageStore) -> Ingesting:
    return Ingesting(store)


def learned(run: dict[str, Any]) -> dict[str, str]:
    table = run["training_set"]
    return {
        name.removesuffix(".png"): label
        for name, label in zip(table["image_id"], table["label"], strict=True)
    }


def reasons(run: dict[str, Any]) -> list[str]:
    told: list[str] = run["rejected_labels"]["reason"].tolist()
    return told


# --- rows in, rows out ---


def test_every_answer_is_a_label_or_rejected(ingest: Ingesting) -> None:
    run = ingest(export(a="cat", x="dog", b="dog"))

    assert run["labels"]["image_id"].tolist() == ["a.png", "b.png"]
    assert run["rejected_labels"]["image_id"].tolist() == ["x.png"]
    assert "no image of the store is called 'x.png'" in reasons(run)[0]
    assert run["rejected_labels"]["line"].tolist() == [3]
    assert run["rejected_labels"]["batch_id"].tolist() == ["monday.csv"]
    assert learned(run) == {"a": "cat", "b": "dog"}


def test_no_export_yet_is_no_label_yet(ingest: Ingesting) -> None:
    run = ingest({})

    assert run["labels"].empty
    assert run["training_set"].empty
    assert run["ingest_report"]["rows"] == 0


def test_an_export_without_rows_is_an_export(ingest: Ingesting) -> None:
    run = ingest({"empty.csv": export(a="cat").head(0), "full.csv": export(b="dog")})

    assert learned(run) == {"b": "dog"}


def test_the_same_answers_again_change_nothing(ingest: Ingesting) -> None:
    first = ingest(export(a="cat", x="dog"))

    again = ingest(export(a="cat", x="dog"))
    renamed = ingest({"tuesday.csv": export(a="cat")})

    assert again["labels"].empty
    assert again["rejected_labels"].empty
    assert renamed["labels"].empty
    assert again["ingest_report"]["unchanged"] == 2
    assert again["ingest_report"]["rejected_before"] == 1
    pd.testing.assert_frame_equal(again["training_set"], first["training_set"])


def test_an_export_that_contains_the_last_one_adds_what_is_new(
    ingest: Ingesting,
) -> None:
    ingest({"1": export(a="cat")})

    run = ingest({"1": export(a="cat"), "2": export(a="cat", b="dog")})

    assert run["labels"]["image_id"].tolist() == ["b.png"]
    assert learned(run) == {"a": "cat", "b": "dog"}


def test_an_answer_without_a_time_is_as_old_as_its_ingestion_and_known_after(
    ingest: Ingesting,
) -> None:
    untimed = export(answer("a", "cat", labeled_at=None))

    run = ingest(untimed)
    again = ingest(untimed)

    assert run["labels"]["labeled_at"].tolist() == [
        pd.Timestamp("2000-01-02", tz="UTC")
    ]
    assert again["labels"].empty
    assert again["ingest_report"]["unchanged"] == 1


def test_what_a_reader_could_not_read_is_rejected_with_its_line(
    ingest: Ingesting,
) -> None:
    broken = answer("", "cat", reason="the row has 7 fields, not 5")

    run = ingest(export(answer("a", "cat"), broken))

    assert reasons(run) == ["the row has 7 fields, not 5"]
    assert run["rejected_labels"]["line"].tolist() == [3]
    assert learned(run) == {"a": "cat"}


def test_a_row_that_is_mended_comes_in_and_the_others_stay_out(
    ingest: Ingesting,
) -> None:
    ingest(
        export(a="cat", b="dgo", x="cat"), classes=["cat", "dog"], new_classes="refuse"
    )
    rejected = len(ingest.past)

    run = ingest(
        export(a="cat", b="dog", x="cat"), classes=["cat", "dog"], new_classes="refuse"
    )

    assert rejected == 2
    assert run["labels"]["image_id"].tolist() == ["b.png"]
    assert run["rejected_labels"].empty


def test_a_row_comes_in_when_its_image_does(ingest: Ingesting, tmp_path: Any) -> None:
    ingest(export(x="cat"))
    (tmp_path / "store" / "x.png").write_bytes(ingest.images.read("a.png") + b" ")
    ingest.images = ImageStore(str(tmp_path / "store"), cache=None, max_pixels=100)

    run = ingest(export(x="cat"))

    assert learned(run) == {"x": "cat"}


def test_a_new_reason_is_a_new_rejection(ingest: Ingesting) -> None:
    ingest(export(a="eel"), classes=["cat"], new_classes="refuse")

    run = ingest(export(a="eel"), classes=["cat", "dog"], new_classes="refuse")

    assert len(run["rejected_labels"]) == 1


def test_rows_in_are_labels_and_rejections_and_what_was_known(
    ingest: Ingesting,
) -> None:
    draw = np.random.default_rng(0)
    names, labels = np.array([*"abcdef", "x", "../y", ""]), ["cat", "dog", "eel", ""]
    total = 0
    for _ in range(12):
        exports = {
            f"{batch}.csv": export(
                *(
                    answer(
                        str(draw.choice(names)),
                        str(draw.choice(labels)),
                        answer=str(draw.choice(["label", "label", "skipped", "odd"])),
                        labeler=str(draw.choice(["ann", "bob", ""])),
                        labeled_at=draw.choice(
                            [NOON, LATER, "2099-01-01T00:00:00Z", None]
                        ),
                        reason=str(draw.choice(["", "", "", "unreadable"])),
                    )
                    for _ in range(draw.integers(1, 12))
                )
            )
            for batch in range(draw.integers(1, 4))
        }
        before = len(ingest.known), len(ingest.past)
        report = ingest(exports, classes=["cat", "dog"], new_classes="refuse")[
            "ingest_report"
        ]
        n_rows = sum(map(len, exports.values()))
        total += n_rows

        outcomes = [report[name] for name in ("labels", "rejected", "unchanged")]
        assert report["rows"] == n_rows == sum(outcomes)
        assert len(ingest.known) - before[0] == outcomes[0]
        assert len(ingest.past) - before[1] == outcomes[1]
        again = ingest(exports, classes=["cat", "dog"], new_classes="refuse")
        assert again["ingest_report"]["unchanged"] == n_rows
    assert total > len(ingest.known) + len(ingest.past) > 0
    assert not ingest.known["label_id"].duplicated().any()


def test_the_log_says_what_became_of_the_rows(
    ingest: Ingesting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    ingest(export(a="cat", x="dog"))

    assert "2 rows of 1 exports: 1 labels, 1 rejected, 0 unchanged" in caplog.text
    assert "monday.csv, line 3: no image of the store is called 'x.png'" in caplog.text


def test_an_older_table_without_new_columns_is_known_all_the_same(
    ingest: Ingesting,
) -> None:
    ingest(export(a="cat"))
    ingest.known["answer"] = None

    run = ingest(export(a="cat"))

    assert run["labels"].empty
    assert learned(run) == {"a": "cat"}


def test_image_ids_may_stand_for_references(ingest: Ingesting) -> None:
    frame = pd.DataFrame({"image_id": ["a.png", "../a.png"], "label": ["cat", "cat"]})

    run = ingest(frame)

    assert learned(run) == {"a": "cat"}
    assert "climbs out of the store" in reasons(run)[0]


# --- one answer ---


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"answer": "label", "label": ""}, "the label is empty"),
        ({"answer": "perhaps"}, "'perhaps' is none of label, skipped, unclear"),
        ({"answer": "unclear"}, "it is unclear and yet names 'cat'"),
        (
            {"labeled_at": "2000-01-02T00:02:00Z"},
            "2000-01-02T00:02:00+00:00, is in the",
        ),
        ({"request_id": "for b"}, "'for b', which is for the image 'b.png'"),
    ],
)
def test_what_an_answer_may_not_say(
    changed: dict[str, Any], reason: str, ingest: Ingesting
) -> None:
    ingest.requests = requests(request("b"))

    run = ingest(export({**answer("a", "cat"), **changed}))

    assert run["labels"].empty
    assert reason in reasons(run)[0]


def test_a_clock_that_is_a_little_fast_is_forgiven(ingest: Ingesting) -> None:
    run = ingest(export(answer("a", "cat", labeled_at="2000-01-02T00:00:59Z")))

    # Later than now, it would look as if no model could have learned it yet.
    assert run["labels"]["labeled_at"].tolist() == [
        pd.Timestamp("2000-01-02", tz="UTC")
    ]


def test_an_image_that_cannot_be_read_is_rejected(
    ingest: Ingesting, tmp_path: Any
) -> None:
    (tmp_path / "store" / "empty.png").touch()
    (tmp_path / "store" / "text.png").write_text("no image")

    run = ingest(export(empty="cat", text="cat", a="cat"))

    assert learned(run) == {"a": "cat"}
    assert all("the image cannot be used" in reason for reason in reasons(run))


def test_a_label_of_a_test_image_is_not_learned_from(ingest: Ingesting) -> None:
    content = ingest.images.fingerprints(["a.png"])
    ingest.test_set = pd.DataFrame(
        {"image_id": ["t.png"], "label": "cat", "content": content}
    )

    run = ingest(export(a="cat", b="dog"))

    assert learned(run) == {"b": "dog"}
    assert "frozen test set" in reasons(run)[0]


@pytest.mark.parametrize("new_classes", ["refuse", "map"])
def test_a_class_that_is_not_allowed_is_told_the_nearest(
    new_classes: str, ingest: Ingesting
) -> None:
    run = ingest(
        export(a="cat", b="dgo"), classes=["cat", "dog"], new_classes=new_classes
    )

    assert learned(run) == {"a": "cat"}
    assert "did the labeler mean 'dog'?" in reasons(run)[0]


def test_without_a_list_the_classes_are_those_so_far(ingest: Ingesting) -> None:
    first = ingest(export(a="cat", b="dog"), new_classes="refuse")

    second = ingest(export(c="cat", d="eel"), new_classes="refuse")

    assert first["rejected_labels"].empty
    assert second["labels"]["label"].tolist() == ["cat"]
    assert "'eel' is none of the 2 classes" in reasons(second)[0]


def test_a_new_class_that_is_allowed_is_told_with_what_it_resembles(
    ingest: Ingesting,
) -> None:
    ingest(export(a="cat", b="dog"))

    run = ingest(export(c="dgo", d="eel"))

    assert run["ingest_report"]["new_classes"] == {
        "dgo": {"labels": 1, "resembles": ["dog"]},
        "eel": {"labels": 1, "resembles": []},
    }


def test_a_mapped_class_is_renamed_and_known_again(ingest: Ingesting) -> None:
    mapped = {"new_classes": "map", "map": {"kitten": "cat"}, "classes": ["cat"]}

    run = ingest(export(a="kitten", b="cat", c="eel"), **mapped)
    again = ingest(export(a="kitten", b="cat", c="eel"), **mapped)

    assert learned(run) == {"a": "cat", "b": "cat"}
    assert "'eel'" in reasons(run)[0]
    assert again["ingest_report"]["unchanged"] == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"map": {"kitten": "cat"}}, "with new_classes: map alone"),
        (
            {"new_classes": "map", "map": {"a": "b"}, "classes": ["cat"]},
            r"leads to \['b'\]",
        ),
    ],
)
def test_a_map_that_leads_nowhere_is_refused(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LabelIngestParams.model_validate({**SETTINGS, **changed})


# --- requests ---


def test_an_answer_finds_the_latest_request_made_before_it(ingest: Ingesting) -> None:
    ingest.requests = requests(
        request("a", request_id="first", requested_at=pd.Timestamp("1999-12-30T12Z")),
        request("a", request_id="second", requested_at=pd.Timestamp(NOON)),
        request("a", request_id="third", requested_at=pd.Timestamp(LATER)),
        request("d", request_id="too late", requested_at=pd.Timestamp(LATER)),
    )

    run = ingest(
        export(answer("c", "cat", request_id="unknown"), a="cat", b="dog", d="dog")
    )

    assert run["labels"]["request_id"].tolist() == ["unknown", "second", "", ""]
    assert run["ingest_report"]["unsolicited"] == 2


def test_a_label_is_known_again_whatever_was_asked_since(ingest: Ingesting) -> None:
    untimed = export(answer("a", "cat", labeled_at=None))
    ingest(untimed)
    ingest.requests = requests(request("a"))

    run = ingest(untimed)

    assert run["labels"].empty


def test_what_nobody_asked_for_may_be_refused(ingest: Ingesting) -> None:
    ingest.requests = requests(request("a"))

    run = ingest(export(a="cat", b="dog"), unsolicited="refuse")

    assert learned(run) == {"a": "cat"}
    assert reasons(run) == ["no request asked for it"]


# --- changes of mind ---


def test_the_later_answer_of_a_labeler_wins_and_the_change_is_told(
    ingest: Ingesting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ingest({"1": export(a="cat", b="cat")})

    run = ingest({"2": export(answer("a", "dog", labeled_at=LATER))})

    assert learned(run) == {"a": "dog", "b": "cat"}
    assert ingest.known["label"].tolist() == ["cat", "cat", "dog"]
    assert run["ingest_report"]["changes"] == [
        {
            "image_id": "a.png",
            "labeler": "ann",
            "from": "cat",
            "to": "dog",
            "at": "2000-01-01T13:00:00+00:00",
        }
    ]
    assert "1 labels were changed by their labelers" in caplog.text


def test_an_older_answer_that_comes_late_changes_nothing(ingest: Ingesting) -> None:
    ingest(export(answer("a", "dog", labeled_at=LATER)))

    run = ingest(export(a="cat"))

    assert learned(run) == {"a": "dog"}
    assert run["ingest_report"]["n_changes"] == 0


def test_a_labeler_may_take_a_label_back(ingest: Ingesting) -> None:
    ingest(export(a="cat"))

    run = ingest(export(answer("a", labeled_at=LATER)))

    assert learned(run) == {}
    assert run["ingest_report"]["changes"][0]["to"] == "skipped"


def test_two_labels_of_one_labeler_at_one_time_are_both_rejected(
    ingest: Ingesting,
) -> None:
    run = ingest({"1": export(answer("a", "cat"), b="dog"), "2": export(a="dog")})
    kept = ingest({"1": export(a="cat", b="dog")})

    assert learned(run) == {"b": "dog"}
    assert len(reasons(run)) == 2
    assert "answered 'cat' and 'dog' at the same time" in reasons(run)[0]
    assert learned(kept) == {"a": "cat", "b": "dog"}


def test_a_label_that_is_known_is_not_changed_by_one_of_the_same_time(
    ingest: Ingesting,
) -> None:
    ingest(export(a="cat"))

    run = ingest({"edited.csv": export(a="dog")})

    assert learned(run) == {"a": "cat"}
    assert "give the correction a later labeled_at" in reasons(run)[0]


# --- copies ---


@pytest.fixture
def copied(ingest: Ingesting, tmp_path: Any) -> Ingesting:
    """Beside ``a.png`` there is ``a2.png`` of the same bytes."""
    (tmp_path / "store" / "a2.png").write_bytes(ingest.images.read("a.png"))
    return ingest


def test_a_copy_that_agrees_is_fine(copied: Ingesting) -> None:
    assert learned(copied(export(a="cat", a2="cat"))) == {"a": "cat", "a2": "cat"}


def test_a_copy_with_another_label_than_the_known_one_is_rejected(
    copied: Ingesting,
) -> None:
    copied(export(a="cat"))

    run = copied(export(a2="dog", b="dog"))

    assert learned(run) == {"a": "cat", "b": "dog"}
    assert reasons(run) == [
        "the image is a copy of 'a.png', which is labeled 'cat' and not 'dog'"
    ]


def test_of_two_new_copies_that_disagree_neither_is_believed(copied: Ingesting) -> None:
    run = copied(export(a="cat", a2="dog", b="dog"))

    assert learned(run) == {"b": "dog"}
    assert "a copy of 'a2.png'" in reasons(run)[0]
    assert "a copy of 'a.png'" in reasons(run)[1]


def test_copies_that_are_corrected_together_come_in(copied: Ingesting) -> None:
    copied(export(a="cat", a2="cat"))

    run = copied(
        export(*(answer(name, "dog", labeled_at=LATER) for name in ("a", "a2")))
    )

    assert learned(run) == {"a": "dog", "a2": "dog"}


# --- several labelers ---


def by(*votes: tuple[str, str], image: str = "a") -> pd.DataFrame:
    """What several labelers say of one image."""
    return export(*(answer(image, label, labeler=who) for who, label in votes))


def test_a_clear_majority_decides(ingest: Ingesting) -> None:
    run = ingest(by(("ann", "cat"), ("bob", "dog"), ("eve", "dog")))

    assert learned(run) == {"a": "dog"}
    assert len(run["labels"]) == 3
    assert run["disputed_labels"].empty


def test_a_tie_is_learned_by_nobody_and_asked_again_first(ingest: Ingesting) -> None:
    run = ingest(by(("ann", "cat"), ("bob", "dog")))
    disputed = run["disputed_labels"]

    settled = ingest(by(("eve", "dog")))

    assert learned(run) == {}
    assert disputed[["image_id", "label", "priority"]].to_numpy().tolist() == [
        ["a.png", "", 1.0]
    ]
    assert disputed["reason"].tolist() == ["tied: 'cat' 1, 'dog' 1"]
    assert disputed["n_answers"].tolist() == [2]
    assert learned(settled) == {"a": "dog"}
    assert settled["disputed_labels"].empty


@pytest.mark.parametrize(
    ("disagreement", "learns"), [("keep", {"a": "dog"}), ("hold_out", {})]
)
def test_a_weak_majority_is_asked_about_again(
    disagreement: str, learns: dict[str, str], ingest: Ingesting
) -> None:
    weak = {**SETTINGS["consensus"], "disagreement": disagreement}

    run = ingest(
        by(("ann", "cat"), ("bob", "dog"), ("eve", "dog"), ("joe", "eel")),
        consensus=weak,
    )

    assert learned(run) == learns
    (dispute,) = run["disputed_labels"].to_dict("records")
    assert (dispute["label"], dispute["priority"]) == ("dog", 0.5)
    assert dispute["reason"] == "disagreement: 'dog' 2, 'cat' 1, 'eel' 1"


def test_to_skip_is_no_vote(ingest: Ingesting) -> None:
    run = ingest(by(("ann", "cat"), ("bob", ""), ("eve", "")))

    assert learned(run) == {"a": "cat"}
    assert run["disputed_labels"].empty


def test_an_image_that_all_skip_is_in_no_training_set(ingest: Ingesting) -> None:
    unclear = answer("a", answer="unclear", labeler="bob")

    run = ingest(export(answer("a"), unclear, b="dog"))

    assert learned(run) == {"b": "dog"}
    assert run["labels"]["answer"].tolist() == ["skipped", "unclear", "label"]
    assert run["disputed_labels"].empty


def test_what_stays_tied_is_not_asked_about_for_ever(ingest: Ingesting) -> None:
    votes = [
        (who, label) for who, label in zip("123456", 3 * ["cat", "dog"], strict=True)
    ]

    run = ingest(by(*votes))

    assert run["disputed_labels"].empty
    assert learned(run) == {}


def test_a_dispute_tells_what_was_said_of_the_image(ingest: Ingesting) -> None:
    ingest.probabilities = said(a=0.75)

    run = ingest(by(("ann", "cat"), ("bob", "dog")))

    (dispute,) = run["disputed_labels"].to_dict("records")
    assert dispute["predicted_label"] == "cat"
    assert (dispute["model_name"], dispute["model_version"]) == ("small_cnn", 2)


def test_where_there_are_enough_labelers_and_model_settle_a_tie(
    ingest: Ingesting,
) -> None:
    # Three labelers; bob is wrong wherever ann and eve agree, and the model knows.
    truth = {"a": "cat", "b": "dog", "c": "cat", "d": "dog", "e": "cat"}
    wrong = {"cat": "dog", "dog": "cat"}
    agreed = [
        answer(name, wrong[label] if who == "bob" else label, labeler=who)
        for name, label in truth.items()
        for who in ("ann", "bob", "eve")
    ]
    tie = [answer("f", "dog", labeler="bob"), answer("f", "cat", labeler="ann")]
    ingest.probabilities = said(a=0.9, b=0.1, c=0.9, d=0.1, e=0.9, f=0.9)
    few = {**SETTINGS["consensus"], "min_images": 7}

    run = ingest(export(*agreed, *tie))
    too_few = ingest({}, consensus=few)

    assert learned(run) == {**truth, "f": "cat"}
    assert run["disputed_labels"].empty
    assert too_few["disputed_labels"]["image_id"].tolist() == ["f.png"]


def test_the_order_of_rows_and_batches_does_not_matter(store: ImageStore) -> None:
    rows = export(
        *by(("ann", "cat"), ("bob", "dog")).to_dict("records"),
        *by(("ann", "cat"), ("bob", "cat"), image="b").to_dict("records"),
        answer("c", "eel"),
    )

    one = Ingesting(store)({"1": rows})
    two = Ingesting(store)({"1": rows.iloc[::-1]})

    pd.testing.assert_frame_equal(one["training_set"], two["training_set"])
    pd.testing.assert_frame_equal(one["disputed_labels"], two["disputed_labels"])


# --- suspected labels ---

SURE = {"a": 0.95, "b": 0.9, "c": 0.05, "d": 0.1, "e": 0.99}
TRUE = {"a": "cat", "b": "cat", "c": "dog", "d": "dog"}


@pytest.mark.parametrize(
    ("suspected", "learns", "asks"),
    [
        ("keep", {**TRUE, "e": "dog"}, []),
        ("hold_out", TRUE, []),
        ("second_opinion", TRUE, ["e.png"]),
    ],
)
def test_a_label_that_the_model_contradicts_is_treated_as_asked(
    suspected: str, learns: dict[str, str], asks: list[str], ingest: Ingesting
) -> None:
    ingest.probabilities = said(**SURE)

    run = ingest(export(**TRUE, e="dog"), suspected=suspected)

    assert learned(run) == learns
    assert run["disputed_labels"]["image_id"].tolist() == asks
    assert ingest.known["image_id"].tolist()[-1] == "e.png"
    if asks:
        (dispute,) = run["disputed_labels"].to_dict("records")
        assert dispute["priority"] == pytest.approx(0.99)
        assert dispute["reason"] == "suspected: 'dog' 1"


@pytest.mark.parametrize("who", ["ann", "bob"])
def test_a_second_answer_clears_a_suspicion(who: str, ingest: Ingesting) -> None:
    ingest.probabilities = said(**SURE)
    ingest(export(**TRUE, e="dog"))

    run = ingest(export(answer("e", "dog", labeler=who, labeled_at=LATER)))

    assert learned(run) == {**TRUE, "e": "dog"}
    assert run["disputed_labels"].empty


def test_a_model_that_is_not_sure_suspects_nothing(ingest: Ingesting) -> None:
    ingest.probabilities = said(**{**SURE, "e": 0.75})

    assert learned(ingest(export(**TRUE, e="dog"))) == {**TRUE, "e": "dog"}


def test_a_class_that_the_model_had_not_met_is_not_suspected(ingest: Ingesting) -> None:
    ingest.probabilities = said(**SURE)

    assert learned(ingest(export(**TRUE, e="eel"))) == {**TRUE, "e": "eel"}


def test_a_few_labels_suspect_nothing(ingest: Ingesting) -> None:
    ingest.probabilities = said(**SURE)
    many = {"min_labels": 6, "min_confidence": 0.8}

    run = ingest(export(**TRUE, e="dog"), suspicion=many)

    assert learned(run) == {**TRUE, "e": "dog"}


# --- the training set ---


def test_a_training_set_says_where_each_label_came_from(ingest: Ingesting) -> None:
    ingest.requests = requests(request("a"), request("b", round=3))
    ingest({"1": export(a="cat")})

    run = ingest({"2": export(b="dog", c="cat")})

    table = run["training_set"]
    assert table["batch_id"].tolist() == ["1", "2", "2"]
    assert table["request_id"].tolist() == ["for a", "for b", ""]
    assert table["content"].tolist() == ingest.images.fingerprints(
        ["a.png", "b.png", "c.png"]
    )
    lineage = run["ingest_report"]["training_set"]
    assert lineage["by_round"] == {"1": 1, "3": 1}
    assert lineage["by_batch"] == {"1": 1, "2": 2}
    assert lineage["by_class"] == {"cat": 2, "dog": 1}
    assert (lineage["n_requests"], lineage["unsolicited"]) == (2, 1)
    assert len(lineage["fingerprint"]) == 64


def test_an_image_that_is_gone_is_left_out_and_told(
    ingest: Ingesting, tmp_path: Any
) -> None:
    ingest(export(a="cat", b="dog"))
    (tmp_path / "store" / "a.png").unlink()
    ingest.images = ImageStore(str(tmp_path / "store"), cache=None, max_pixels=100)

    run = ingest({})

    assert learned(run) == {"b": "dog"}
    assert run["ingest_report"]["training_set"]["left_out"] == {"unreadable": 1}


@pytest.mark.parametrize(
    ("train_on_audits", "learns"),
    [(True, {"a": "cat", "b": "dog"}), (False, {"b": "dog"})],
)
def test_audited_images_are_trained_on_as_a_parameter_says(
    train_on_audits: bool, learns: dict[str, str], ingest: Ingesting
) -> None:
    ingest.requests = requests(
        request("a"), request("a", request_id="audit", audit=True), request("b")
    )

    run = ingest(export(a="cat", b="dog"), train_on_audits=train_on_audits)

    assert learned(run) == learns
    assert len(run["labels"]) == 2


def test_nodes_leave_what_they_were_given_as_it_was(ingest: Ingesting) -> None:
    frame = export(a="cat", b="dog")
    known = ingest.known

    ingest(frame)

    pd.testing.assert_frame_equal(frame, export(a="cat", b="dog"))
    assert known.empty
