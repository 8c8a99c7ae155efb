"""What crosses the catalog is checked, and a wrong row is named."""

from hashlib import sha256
from typing import Any

import pandas as pd
import pytest

from active_learning import schemas
from active_learning.errors import LabelsError, SchemaError


def manifest(**columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"image_id": ["a", "b"], "label": ["cat", "dog"], "content": ["1", "2"]}
    )
    return frame.assign(**columns)


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(LabelsError, match="image_id='b'"):
        schemas.check_manifest(manifest(label=["cat", ""]))


def test_an_image_stands_in_a_manifest_once() -> None:
    with pytest.raises(SchemaError, match="repeat a image_id"):
        schemas.check_manifest(manifest(image_id="a"))


def test_the_fingerprint_is_that_of_the_sorted_lines() -> None:
    rows = {"content": ["b", "a", "a"], "label": ["cat", "dög", "cat"]}
    lines = sorted(
        f"{content}\0{label}\n" for content, label in zip(*rows.values(), strict=True)
    )

    assert schemas.fingerprint(pd.DataFrame(rows)) == sha256_of("".join(lines))
    assert schemas.fingerprint(pd.DataFrame(rows, dtype="string")) == sha256_of(
        "".join(lines)
    )
    assert schemas.fingerprint(pd.DataFrame(rows).iloc[:0]) == sha256_of("")


def sha256_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def test_the_fingerprint_speaks_of_content_and_label_alone() -> None:
    one = schemas.fingerprint(manifest())

    assert one == schemas.fingerprint(manifest()[::-1])
    assert one == schemas.fingerprint(manifest(image_id=["x", "y"]))
    assert one != schemas.fingerprint(manifest(label=["dog", "cat"]))
    assert one != schemas.fingerprint(manifest(content=["1", "3"]))


def test_a_missing_and_an_unknown_column_are_named() -> None:
    frame = manifest().rename(columns={"content": "contents"})

    with pytest.raises(SchemaError, match=r"missing: \['content'\].*\['contents'\]"):
        schemas.check_manifest(frame)


def test_a_value_that_does_not_fit_its_type_is_refused() -> None:
    frame = pd.DataFrame({"image_id": ["a"], "model_version": ["one"], "vector": [[1]]})

    with pytest.raises(SchemaError, match="does not fit"):
        schemas.to_arrow(frame, schemas.EMBEDDINGS)


@pytest.mark.parametrize("name", schemas.TABLES)
def test_an_empty_table_has_the_columns_of_a_full_one(name: str) -> None:
    schema = schemas.TABLES[name].schema

    schemas.check_columns(schemas.empty_frame(schema), schema)
