"""Broken exports, what is wrong with each, and the same exports mended."""

import json
from dataclasses import dataclass, field
from typing import Any

URL = "https://acct.blob.core.windows.net/images/"
HEADER = "image_id,label\n"
GOOD = {"good.csv": b"image_id,label\na.png,cat\nb.png,dog\n"}


@dataclass(frozen=True)
class Case:
    """Files with one bad row, or a bad file beside a good one.

    In every case ``a.png`` is a cat and ``b.png`` a dog. The bad row is about ``c.png``
    and comes in as a cat once the file is mended.

    Args:
        files: By their path below the folder of exports.
        where: The batch and the line of what is refused.
        reason: Part of what is said.
        mended: What replaces or joins the files.
        ingested: The reader cannot know; ``label-ingest`` finds it.
    """

    files: dict[str, bytes]
    where: tuple[str, int]
    reason: str
    mended: dict[str, bytes] = field(default_factory=dict)
    ingested: bool = False


def in_csv(
    line: str | bytes, reason: str, mended: str = "c.png,cat", **options: Any
) -> Case:
    """A bad third line of four in a plain CSV file."""
    header = options.get("header", HEADER)
    more = "," * (header.count(",") - 1)
    rows = [f"a.png,cat{more}\n", f"b.png,dog{more}\n"]

    def file(line: str | bytes) -> bytes:
        middle = line if isinstance(line, bytes) else line.encode()
        return (header + rows[0]).encode() + middle + f"\n{rows[1]}".encode()

    return Case(
        {"monday.csv": file(line)},
        ("monday.csv", 3),
        reason,
        {"monday.csv": file(mended + more)},
        options.get("ingested", False),
    )


def written(how: Any) -> Case:
    """A sound way of writing CSV, with an empty label in line 3."""
    text = "image_id,label\na.png,cat\nc.png,\nb.png,dog\n"
    return Case(
        {"monday.csv": how(text)},
        ("monday.csv", 3),
        "the label is empty",
        {"monday.csv": how(text.replace("c.png,", "c.png,cat"))},
    )


def file_of(data: bytes, reason: str, mended: bytes, name: str = "bad.csv") -> Case:
    """A file of which nothing can be read, beside a good one."""
    return Case({**GOOD, name: data}, (name, 0), reason, {name: mended})


def lines(*rows: Any) -> bytes:
    """JSON Lines; a text stands for itself."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return ("\n".join(texts) + "\n").encode()


def line(name: str, label: Any) -> dict[str, Any]:
    """One line of Azure ML's."""
    return {"image_url": f"AmlDatastore://{name}", "label": label}


def in_lines(bad: Any, reason: str) -> Case:
    """A bad second line of three in Azure ML's JSON Lines."""
    first, last = line("a.png", "cat"), line("b.png", "dog")
    return Case(
        {"labels.jsonl": lines(first, bad, last)},
        ("labels.jsonl", 2),
        reason,
        {"labels.jsonl": lines(first, line("c.png", "cat"), last)},
    )


def coco(*annotations: tuple[Any, Any], extra: dict[str, Any] | None = None) -> bytes:
    """COCO of ``a.png``, ``b.png``, ``c.png`` by the ids 1, 2, 3; an element a line."""
    images = [
        {"id": number, "file_name": name, "absolute_url": f"{URL}{name}"}
        for number, name in enumerate(("a.png", "b.png", "c.png"), start=1)
    ]
    given = [
        {"id": number, "image_id": image, "category_id": category, **(extra or {})}
        for number, (image, category) in enumerate(annotations, start=1)
    ]
    # Not in the order of the annotations: their place says nothing.
    categories = [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]
    parts = [
        ("images", images[::-1]),
        ("annotations", given),
        ("categories", categories),
    ]
    told = [
        f'"{key}": [\n' + ",\n".join(map(json.dumps, values)) + "\n]"
        for key, values in parts
    ]
    return ("{" + ", ".join(told) + "}").encode()


def task(name: str, *choices: str, **more: Any) -> dict[str, Any]:
    """A task of Label Studio with one annotation."""
    result = {
        "id": "x1",
        "from_name": "label",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(choices)},
    }
    annotation = {
        "id": 7,
        "completed_by": {"id": 1, "email": "ann@example.com"},
        "was_cancelled": False,
        "result": [result],
        "created_at": "2000-01-01T10:00:00.000000Z",
        "updated_at": "2000-01-01T11:00:00.000000Z",
    }
    return {
        "id": 3,
        "data": {"image": f"/data/local-files/?d=images/{name}", **more},
        "annotations": [annotation],
        "predictions": [],
    }


def tasks(*elements: Any) -> bytes:
    """A JSON list, an element a line."""
    return ("[\n" + ",\n".join(map(json.dumps, elements)) + "\n]").encode()


def in_tasks(bad: Any, reason: str) -> Case:
    """A bad second task of three, on line 3, in Label Studio's export."""
    first, last = task("a.png", "cat"), task("b.png", "dog")
    return Case(
        {"project.json": tasks(first, bad, last)},
        ("project.json", 3),
        reason,
        {"project.json": tasks(first, task("c.png", "cat"), last)},
    )


MINIMAL = {
    "id": 1,
    "image": "images/c.png",
    "label": "cat",
    "annotator": 1,
    "annotation_id": 7,
    "created_at": "2000-01-01T10:00:00Z",
    "updated_at": "2000-01-01T11:00:00Z",
    "lead_time": 1.5,
}
MENDED = b"image_id,label\nc.png,cat\n"
LOST = task("c.png", "cat") | {"data": {"text": "no image here"}}
EMBEDDED = task("c.png", "cat") | {"data": {"image": "data:image/png;base64,iVBO"}}
WITH = "image_id,label,{}\n".format
PNG = b"\x89PNG\r\n\x1a\n"

HALF = '{"image_url": "c\\ud800.png", "label": "cat"}'
ENDLESS = '{"image_url": "c.png", "label": ' + "9" * 9999 + "}"

CASES: dict[str, Case] = {
    # One bad row of a CSV file.
    "an empty label": in_csv("c.png,", "the label is empty"),
    "a row of spaces": in_csv(" , ", "the image is not named"),
    "too many fields": in_csv("c.png,cat,dog", "has 3 fields where the header has 2"),
    "too few fields": in_csv("c.png", "has 1 fields where the header has 2"),
    "a quote that is never closed": in_csv('"c.png,cat', "no row of CSV"),
    "a quote in the middle": in_csv('"c".png,"cat"x', "no row of CSV"),
    "a label that is not UTF-8": in_csv(b"c.png,caf\xe9", "label is not UTF-8"),
    "no image": in_csv(",cat", "the image is not named"),
    "an enormous label": in_csv("c.png," + "x" * 9999, "label is longer than 1024"),
    "an enormous field": in_csv('c.png,"' + "x" * 200_000 + '"y', "no row of CSV"),
    "a time nobody can read": in_csv(
        "c.png,cat,31/01/2000", "not in ISO 8601", header=WITH("labeled_at")
    ),
    "an answer that is none": in_csv(
        "c.png,cat,maybe", "none of label, skipped and unclear", header=WITH("answer")
    ),
    "skipped and labeled": in_csv(
        "c.png,cat,skipped", "and yet has a label", header=WITH("answer")
    ),
    "skipped by a word, then labeled": in_csv(
        "c.png,,label", "the label is empty", header=WITH("answer")
    ),
    "a BOM": written(lambda text: text.encode("utf-8-sig")),
    "CRLF": written(lambda text: text.replace("\n", "\r\n").encode()),
    "semicolons": written(lambda text: text.replace(",", ";").encode()),
    "tabs": written(lambda text: text.replace(",", "\t").encode()),
    "UTF-16": written(lambda text: text.encode("utf-16")),
    "a row of two lines above": Case(
        {"monday.csv": b'image_id,label,by\na.png,cat,"a\nb"\n\nc.png,,\nb.png,dog,\n'},
        ("monday.csv", 5),
        "the label is empty",
        {"monday.csv": MENDED},
    ),
    "an open quote above a closed one": Case(
        {"monday.csv": b'image_id,label\na.png,cat\n"c.png,cat\n"b.png",dog\n'},
        ("monday.csv", 3),
        "no row of CSV",
        {"monday.csv": MENDED},
    ),
    # A file of which nothing can be read.
    "an empty file": file_of(b"", "the file is empty", MENDED),
    "no header": file_of(b"c.png,cat\n", "no export that is known", MENDED),
    "a line without end": file_of(b"x" * 200_000, "no export that is known", MENDED),
    "no column label": file_of(b"image_id,class\nc.png,cat\n", "'label' is", MENDED),
    "no column image_id": file_of(b"file,label\nc.png,cat\n", "'image_id' is", MENDED),
    "a column twice": file_of(
        b"image_id,label,label\nc.png,cat,dog\n", "'label' is there twice", MENDED
    ),
    "two formats in one file": file_of(
        b"image_id,url,label\nc.png,c.png,cat\n", "fit two formats", MENDED
    ),
    "UTF-16 without a mark": file_of(
        MENDED.decode().encode("utf-16-le"), "save it as UTF-8", MENDED
    ),
    "a workbook": file_of(b"PK\x03\x04....", "save it as CSV UTF-8", MENDED, "x.xlsx"),
    "an image named csv": file_of(PNG, "the file is an image", MENDED),
    "truncated JSON": file_of(
        tasks(task("c.png", "cat"))[:-40], "was it cut off?", MENDED, "project.json"
    ),
    "truncated COCO": file_of(coco((3, 1))[:-30], "cut off", coco((3, 1)), "c.json"),
    "some other JSON": file_of(b'{"a": 1}', "no export that is known", MENDED),
    "a list of something": file_of(b"[1, 2]", "none of its elements", MENDED),
    "deeply nested JSON": file_of(b"[" * 99_999, "it is no JSON", MENDED),
    "two exports in one list": file_of(
        tasks(task("c.png", "cat"), MINIMAL), "export one of them", MENDED
    ),
    "an MLTable that names nothing": Case(
        {**GOOD, "t/MLTable": b"paths:\n  - file: ./labels.jsonl\n"},
        ("t/MLTable", 0),
        "'./labels.jsonl', which is not there",
        {"t/labels.jsonl": lines(line("c.png", "cat"))},
    ),
    "an MLTable that leaves the folder": Case(
        {**GOOD, "t/MLTable": b"paths:\n  - file: ../../secret.jsonl\n"},
        ("t/MLTable", 0),
        "leaves the folder of exports",
        {"t/MLTable": lines(line("c.png", "cat"))},
    ),
    # One bad line or element of JSON.
    "a broken line": in_lines('{"image_url": "AmlD', "it is no JSON"),
    "a line of another kind": in_lines({"url": "c.png"}, "with an image_url"),
    "several labels in a line": in_lines(line("c.png", ["cat", "dog"]), "not one"),
    "a label of a box": in_lines(line("c.png", {"label": "cat"}), "not one class"),
    "a label true": in_lines(line("c.png", True), "not one class"),
    "a label NaN": in_lines(line("c.png", float("nan")), "NaN is no value of JSON"),
    "half a character": in_lines(HALF, "is not UTF-8"),
    "a number without end": in_lines(ENDLESS, "it is no JSON"),
    "a line without a label": in_lines({"image_url": "c.png"}, "the label is empty"),
    "a key twice": in_lines(
        '{"image_url": "c.png", "label": "cat", "label": "dog"}', "'label' twice"
    ),
    "a line cut off at the end": Case(
        {"l.jsonl": lines(line("a.png", "cat"), line("b.png", "dog")) + b'{"image_u'},
        ("l.jsonl", 3),
        "it is no JSON",
        {"l.jsonl": lines(line("c.png", "cat"))},
    ),
    "two annotations of an image": Case(
        {"coco.json": coco((1, 1), (3, 1), (3, 2), (2, 2))},
        ("coco.json", 7),
        "the image has 2 annotations, not one",
        {"coco.json": coco((1, 1), (3, 1), (2, 2))},
    ),
    "an annotation of no image": Case(
        {"coco.json": coco((1, 1), (9, 1), (2, 2))},
        ("coco.json", 7),
        "no image has the id 9",
        {"coco.json": coco((1, 1), (3, 1), (2, 2))},
    ),
    "an annotation of no category": Case(
        {"coco.json": coco((1, 1), (3, 9), (2, 2))},
        ("coco.json", 7),
        "no category has the id 9",
        {"coco.json": coco((1, 1), (3, 1), (2, 2))},
    ),
    "a box": Case(
        {**GOOD, "coco.json": coco((3, 1), extra={"bbox": [1, 2, 3, 4]})},
        ("coco.json", 6),
        "of a part of the image",
        {"coco.json": coco((3, 1))},
    ),
    "two labels for one image": in_tasks(task("c.png", "cat", "dog"), "not one label"),
    "a task without an image": in_tasks(LOST, "name no image"),
    "an image inside the task": in_tasks(EMBEDDED, "the image itself is in the task"),
    "no choice was made": in_tasks(task("c.png"), "the label is empty"),
    "an element of another kind": in_tasks({"id": 1}, "it is no task"),
    # Folders.
    "two formats in one folder": Case(
        {"tue/l.csv": GOOD["good.csv"], "tue/cat/c.png": PNG},
        ("tue", 0),
        "and also 'tue/l.csv'",
        {"wed/cat/c.png": PNG},
    ),
    "an image in no class folder": Case(
        {"tue/cat/a.png": PNG, "tue/c.png": PNG, "tue/dog/b.png": PNG},
        ("tue", 0),
        "in no class folder",
        {"wed/cat/c.png": PNG},
    ),
    # What only the store and the parameters can tell.
    "an unknown image": in_csv("no.png,cat", "no image of the store", ingested=True),
    "an unknown class": in_csv("c.png,catt", "'catt'", ingested=True),
    "a time in the future": in_csv(
        "c.png,cat,2999-01-01T00:00:00Z", "future", header=WITH("labeled_at"),
        ingested=True,
    ),
    "..": in_csv("../c.png,cat", "climbs out of the store", ingested=True),
    "a Windows path": in_csv(
        "D:\\x\\no.png,cat", "no image of the store", "D:\\x\\c.png,cat", ingested=True
    ),
    "an absolute path": in_csv(
        "/mnt/x/no.png,cat", "no image of the store", "/mnt/x/c.png,cat", ingested=True
    ),
    "a URL-encoded name": in_csv(
        "c%252epng,cat", "no image of the store", "c%2Epng,cat", ingested=True
    ),
    "the same name in two folders": in_csv("x.png,cat", "may be 'one/x", ingested=True),
}  # fmt: skip
