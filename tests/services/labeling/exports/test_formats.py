"""Files as the tools write them become the same table."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.services.labeling.exports.broken import (
    MINIMAL,
    PNG,
    coco,
    line,
    lines,
    task,
    tasks,
)

from active_learning.imaging.places import place_at
from active_learning.schemas import ANSWERS
from active_learning.services.labeling.exports import read, read_folder

AML = "azureml://subscriptions/S/resourcegroups/RG/workspaces/WS/datastores/DS/paths/pool/"


def rows(answers: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    """The values of some columns, row by row; every row could be read."""
    assert answers["reason"].tolist() == [""] * len(answers)
    assert answers.columns.tolist() == ANSWERS.names
    return list(answers[list(columns)].itertuples(index=False, name=None))


def test_azureml_json_lines_of_both_versions() -> None:
    first = {"image_url": "AmlDatastore://p/a.jpg", "label": "cat"}
    second = {
        "image_url": f"{AML}b.jpg",
        "image_details": {"format": "jpg", "width": "400px", "height": "258px"},
        "label": "dog",
        "label_confidence": 1.0,
    }

    answers = read(lines(first, "", second))

    assert rows(answers, "reference", "label", "line", "source") == [
        ("AmlDatastore://p/a.jpg", "cat", 1, "azureml"),
        (f"{AML}b.jpg", "dog", 3, "azureml"),
    ]


def test_one_json_line_alone_and_one_over_lines() -> None:
    assert rows(read(lines(line("a", "cat"))), "label", "line") == [("cat", 1)]
    spread = json.dumps(line("a", "cat"), indent=2).encode()
    assert rows(read(spread), "label") == [("cat",)]


def test_an_mltable_and_its_lines_are_one_export(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "MLTable").write_text(
        "paths: [{file: ./train.jsonl}]\n"
        "transformations:\n"
        "  - read_json_lines: {encoding: utf8, invalid_lines: error}\n"
        "  - convert_column_types: [{columns: image_url, column_type: stream_info}]\n"
    )
    (folder / "train.jsonl").write_bytes(lines(line("a.jpg", "cat")))

    exports = read_folder(place_at(str(tmp_path), None), settle_s=0)

    assert list(exports) == ["out/train.jsonl"]
    assert rows(exports["out/train.jsonl"], "label") == [("cat",)]


def test_an_mltable_somewhere_else_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "MLTable").write_text("paths:\n- file: https://x/l.jsonl?sig=hunter2\n")

    exports = read_folder(place_at(str(tmp_path), None), settle_s=0)

    reason = exports["MLTable"]["reason"].item()
    assert "https://x/l.jsonl" in reason
    assert "hunter2" not in reason


def test_coco_is_joined_by_ids_and_prefers_the_absolute_url() -> None:
    answers = read(coco((2, 2), (1, 1)))

    url = "https://acct.blob.core.windows.net/images/"
    assert rows(answers, "reference", "label", "source") == [
        (f"{url}b.png", "dog", "azureml"),
        (f"{url}a.png", "cat", "azureml"),
    ]


@pytest.mark.parametrize("names", [["coco_url", "file_name"], ["file_name"]])
def test_coco_without_an_absolute_url_takes_the_next_name(names: list[str]) -> None:
    document = {
        "images": [{"id": 1} | {name: f"{name}.png" for name in names}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "area": 0.0}],
        "categories": [{"id": 7, "name": "cat"}],
    }

    answers = read(json.dumps(document).encode())

    assert rows(answers, "reference", "label") == [(f"{names[0]}.png", "cat")]


def test_azureml_csv() -> None:
    answers = read(b"Url,Label\nhttps://x/a.jpg?sv=1&sig=hunter2,cat\n")

    assert rows(answers, "reference", "label", "source", "line") == [
        ("https://x/a.jpg", "cat", "azureml", 2)
    ]


def test_label_studio_json_with_several_annotations() -> None:
    asked = task("a.png", "cat", request_id="r1", image_id="pool/a.png")
    second = task("a.png", "dog")["annotations"][0] | {
        "completed_by": 12,
        "updated_at": None,
    }
    skipped = second | {"was_cancelled": True, "completed_by": {"id": 4}}
    asked["annotations"] += [second, skipped]
    waiting = task("b.png", "cat") | {"annotations": []}

    answers = read(tasks(asked, waiting))

    columns = ("label", "answer", "labeler", "request_id", "line")
    assert rows(answers, *columns) == [
        ("cat", "label", "ann@example.com", "r1", 2),
        ("dog", "label", "12", "r1", 2),
        ("", "skipped", "4", "r1", 2),
    ]
    assert set(answers["reference"]) == {"pool/a.png"}
    assert set(answers["source"]) == {"label_studio"}
    # A correction is as late as its last change.
    hours = answers["labeled_at"].dt.strftime("%H %Z").tolist()
    assert hours == ["11 UTC", "10 UTC", "10 UTC"]


def test_label_studio_json_finds_the_image_and_the_question() -> None:
    told = task("a.png", "cat")
    told["data"] = {"picture": "s3://bucket/a.png", "text": "hello"}
    told["meta"] = {"request_id": 5}
    other = {"from_name": "quality", "type": "choices", "value": {"choices": ["low"]}}
    told["annotations"][0]["result"].append(other)

    answers = read(tasks(told))

    assert rows(answers, "reference", "label", "request_id") == [
        ("s3://bucket/a.png", "cat", "5")
    ]


def test_label_studio_json_min() -> None:
    chosen = MINIMAL | {"image_id": "pool/c.png", "request_id": "r1", "annotator": 3}
    waiting = {name: value for name, value in MINIMAL.items() if name != "label"}
    waiting |= {"annotation_id": None}

    answers = read(tasks(waiting, chosen))

    columns = ("reference", "label", "labeler", "request_id", "line", "source")
    assert rows(answers, *columns) == [
        ("pool/c.png", "cat", "3", "r1", 3, "label_studio")
    ]


def test_label_studio_json_min_with_another_name_for_the_choice() -> None:
    record = {("breed" if k == "label" else k): v for k, v in MINIMAL.items()}

    assert rows(read(tasks(record)), "label") == [("cat",)]
    twofold = read(tasks(record | {"mood": "sleepy"}))
    assert "['breed', 'mood']" in twofold["reason"].item()


def test_label_studio_csv() -> None:
    header = "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at"
    one = '7,"ann@example.com","cat","2000-01-01T10:00:00Z",3,"i/a.png",1.5,'
    two = one.replace('"cat"', '"{""choices"": [""cat"", ""dog""]}"')
    text = f'{header}\n{one}"2000-01-01T11:00:00Z"\n{two}"2000-01-01T11:00:00Z"\n'

    answers = read(text.encode())

    assert rows(answers[:1], "reference", "label", "labeler", "line") == [
        ("i/a.png", "cat", "ann@example.com", 2)
    ]
    assert answers["reason"][1] == "the image has more than one label"


def test_plain_csv_keeps_what_looks_like_a_number_or_nothing() -> None:
    text = 'label,image_id,rank\n007,a.png,1\nNA,"b, c.png",2\nnull,d.png,3\n1.0,e,4\n'

    answers = read(text.encode())

    assert rows(answers, "reference", "label") == [
        ("a.png", "007"),
        ("b, c.png", "NA"),
        ("d.png", "null"),
        ("e", "1.0"),
    ]


def test_plain_csv_with_everything_it_may_say() -> None:
    text = (
        "image_id,label,labeler,labeled_at,request_id,answer\n"
        "a.png,cat,ann,2000-01-01T12:00:00+02:00,r1,\n"
        "b.png,,ben,2000-01-01 10:00,r2,Unclear\n"
        "c.png, skip ,cem,,r3,label\n"
    )

    answers = read(text.encode())

    columns = ("label", "answer", "labeler", "request_id")
    assert rows(answers, *columns) == [
        ("cat", "label", "ann", "r1"),
        ("", "unclear", "ben", "r2"),
        ("skip", "label", "cem", "r3"),
    ]
    ten = pd.Timestamp("2000-01-01T10:00", tz="UTC")
    assert answers["labeled_at"].tolist() == [ten, ten, pd.NaT]
    assert str(answers["labeled_at"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("skipped", "skipped"),
        ("Skip", "skipped"),
        ("unclear", "unclear"),
        ("UNSURE", "unclear"),
        ("not sure", "unclear"),
        ("can't tell", "unclear"),
    ],
)
def test_a_label_that_gives_none_is_an_answer(word: str, answer: str) -> None:
    assert rows(
        read(f"image_id,label\na.png,{word}\n".encode()), "answer", "label"
    ) == [(answer, "")]


def test_the_order_of_columns_and_their_case_do_not_matter() -> None:
    assert rows(read(b"Label;Image_ID\r\ncat;a.png\r\n"), "reference", "label") == [
        ("a.png", "cat")
    ]


def test_old_line_ends_are_lines_too() -> None:
    answers = read(b"image_id,label\ra.png,cat\rb.png,dog\r")

    assert rows(answers, "label", "line") == [("cat", 2), ("dog", 3)]


def test_lines_are_counted_over_quoted_and_empty_ones() -> None:
    text = 'image_id,label,note\n\na.png,cat,"1\n2\n3"\n\nb.png,dog,\n"c.png",cow,""\n'

    answers = read(text.encode())

    assert rows(answers, "label", "line") == [("cat", 3), ("dog", 7), ("cow", 8)]


def test_lines_are_counted_over_broken_ones() -> None:
    answers = read(b"image_id,label\na.png\n\nb.png,dog\nc,d,e\nd.png,cat\n")

    assert answers["line"].tolist() == [2, 4, 5, 6]
    assert answers["reference"].tolist() == ["", "b.png", "", "d.png"]


def test_a_mark_of_inches_is_no_quote() -> None:
    answers = read(b'image_id,label\n5" pipe.png,cat\nb.png,dog\n')

    assert rows(answers, "reference", "line") == [('5" pipe.png', 2), ("b.png", 3)]


def test_an_export_without_answers_is_an_empty_one() -> None:
    for data in (b"[]", b"image_id,label\n", coco(), tasks(MINIMAL | NOT_YET)):
        answers = read(data)

        assert answers.columns.tolist() == ANSWERS.names
        assert answers.empty


NOT_YET = {"annotation_id": None}


def test_images_sorted_into_folders(tmp_path: Path) -> None:
    names = ["mon/cat/a.png", "mon/dog/pool/b.png", "mon/skipped/c.png", "tue/x/a.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)

    exports = read_folder(place_at(str(tmp_path), None), settle_s=0)

    assert list(exports) == ["mon", "tue"]
    assert rows(exports["mon"], "reference", "label", "answer", "source", "line") == [
        ("a.png", "cat", "label", "folder", 0),
        ("pool/b.png", "dog", "label", "folder", 0),
        ("c.png", "", "skipped", "folder", 0),
    ]


def test_an_image_in_two_class_folders_is_of_neither(tmp_path: Path) -> None:
    for name in ("mon/cat/a.png", "mon/dog/a.png", "mon/dog/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)

    answers = read_folder(place_at(str(tmp_path), None), settle_s=0)["mon"]

    assert "['cat', 'dog']" in answers["reason"][0]
    assert (answers["reason"] == "").tolist() == [False, False, True]


def test_a_token_is_neither_stored_nor_told() -> None:
    secret = "https://x/a.jpg?sv=1&sig=hunter2"
    exports = [
        f"Url,Label\n{secret},cat\n{secret},\n{secret},cat,dog\n",
        f"{secret}\n",
        json.dumps(line(secret, "cat")) + f'\n{{"image_url": "{secret}", \n',
        json.dumps([task("a", "cat", image_id=secret), {"id": secret}]),
    ]

    for text in exports:
        answers = read(text.encode())
        assert "hunter2" not in answers.to_csv()
        assert len(answers)


ANSWER = {
    "image_url": "azureml://subscriptions/s/datastores/d/paths/pool/a b,c.png",
    "image_details": {"format": "png", "width": "28px", "height": "28px"},
    "label": "größer {x}",
}


@pytest.mark.parametrize(
    "spelled",
    [
        json.dumps(ANSWER),
        json.dumps(dict(reversed(ANSWER.items()))),
        json.dumps(ANSWER).replace("/", "\\/"),
    ],
    ids=["escaped", "another order", "slashes"],
)
def test_json_lines_mean_the_same_however_they_are_written(spelled: str) -> None:
    as_the_service_writes = json.dumps(ANSWER, ensure_ascii=False)

    plain = read(f"{as_the_service_writes}\n{as_the_service_writes}\n".encode())
    other = read(f"{spelled}\n{spelled}\n".encode())

    assert plain["label"].tolist() == ["größer {x}"] * 2
    assert plain["line"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(plain, other)


@pytest.mark.parametrize(
    "line",
    [
        '{"image_url": "a.png", "label": "cat", "label": "dog"}',
        '{"image_url": "a.png", "image_details": {"format": "png", "width": }, '
        '"label": "cat"}',
    ],
    ids=["a key twice", "no JSON inside"],
)
def test_a_broken_line_among_plain_ones_is_refused(line: str) -> None:
    good = json.dumps(ANSWER)

    found = read(f"{good}\n{line}\n{good}\n".encode())

    assert found["line"].tolist() == [1, 2, 3]
    assert (found["reason"] != "").tolist() == [False, True, False]


def test_coco_on_one_line_reads_as_on_many() -> None:
    document = json.loads(coco((1, 1), (2, 2)))

    one = read(json.dumps(document).encode())
    many = read(json.dumps(document, indent=1).encode())

    assert set(one["line"]) == {1}
    assert many["line"].min() > 1
    pd.testing.assert_frame_equal(one.drop(columns="line"), many.drop(columns="line"))
