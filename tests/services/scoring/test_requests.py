"""What callers send, and what they are told."""

import json
import os
import resource
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from flask.testing import FlaskClient
from tests.services.scoring.apps import opened
from tests.services.scoring.serving import (
    LIMITS,
    make_release,
    picture,
    put_up,
    table,
    told,
)

from active_learning.imaging.decode import decode
from active_learning.services.scoring import service
from active_learning.services.scoring.model import InferenceModel
from active_learning.services.telemetry.parts import Parts

PNG = "image/png"
JSON = "application/json"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    """A service with one model, version 3, and the images a.png and b.png."""
    settings = told(tmp_path)
    put_up(tmp_path / "endpoint", make_release(tmp_path / "endpoint", 3))
    for number, name in enumerate("ab"):
        (tmp_path / "images" / f"{name}.png").write_bytes(picture(number))
    with opened(settings) as client:
        yield client


def base64(content: bytes) -> str:
    return b64encode(content).decode()


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Close the service, and all that was collected by prediction_id."""
    service.stop()
    found = table(folder).to_pylist()
    assert len({row["prediction_id"] for row in found}) == len(found)
    return {row["prediction_id"]: row for row in found}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_an_image_is_decoded_as_score_and_train_do(
    client: FlaskClient, tmp_path: Path, kind: str
) -> None:
    content = picture(7, kind)
    (tmp_path / "images" / "c").write_bytes(content)
    folder = next((tmp_path / "endpoint" / "releases").iterdir())
    model = InferenceModel.load(folder, 1)
    pixels = decode(content, model.preprocessing, LIMITS["max_pixels"])
    expected = model.answer(pixels[np.newaxis])[0].tolist()

    said = [
        client.post("/score", data=content, content_type=f"image/{kind.lower()}"),
        client.post("/score", data=content, content_type="application/octet-stream"),
        client.post("/score", json={"image": base64(content)}),
        client.post("/score", json={"image_id": "c"}),
    ]

    for response in said:
        assert response.status_code == 200, response.json
        assert list(response.json["probabilities"].values()) == expected
        assert list(response.json["probabilities"]) == list(model.classes)
        assert response.json["label"] == model.classes[int(np.argmax(expected))]
        assert response.json["model_version"] == 3
        assert response.json["model_name"] == model.model_name


def test_a_list_is_answered_in_its_order(client: FlaskClient) -> None:
    images = [{"image_id": "b.png"}, {"image": base64(picture(0))}]

    several = client.post("/score", json={"images": images})
    alone = [client.post("/score", json=image) for image in images]

    answers = several.json["predictions"]
    assert [a["probabilities"] for a in answers] == [
        pytest.approx(one.json["probabilities"]) for one in alone
    ]
    assert answers[0]["image_id"] == "b.png"


def test_a_retry_with_its_own_id_counts_once(
    client: FlaskClient, tmp_path: Path
) -> None:
    first = {"image_id": "a.png", "prediction_id": "door-7:1"}

    for _ in range(3):
        assert client.post("/score", json=first).json["prediction_id"] == "door-7:1"
        sent = client.post(
            "/score",
            data=picture(1),
            content_type=PNG,
            headers={"x-prediction-id": "door-7:2"},
        )
        assert sent.json["prediction_id"] == "door-7:2"
        service.current()._collector.drain_once()  # type: ignore[union-attr]

    service.stop()
    parts = Parts(tmp_path / "tables" / "predictions", "predictions")
    ids = parts.read().column("prediction_id").to_pylist()
    assert sorted(ids) == ["door-7:1", "door-7:2"]


WRONG: dict[str, tuple[bytes | str, str, int, str]] = {
    "nothing": (b"", PNG, 400, "empty"),
    "nothing in JSON": (b"", JSON, 400, "JSON"),
    "text": (b"hello", "text/plain", 415, "text/plain"),
    "a form": (b"a=b", "application/x-www-form-urlencoded", 415, "Content-Type"),
    "no image": (b"hello", PNG, 415, "JPEG"),
    "a GIF": (picture(0, "GIF"), "image/gif", 415, "JPEG"),
    "a cut PNG": (picture(0)[:-50], PNG, 422, "damaged"),
    "a cut header": (picture(0)[:20], PNG, 422, "damaged"),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + b"x" * 200_000, PNG, 413, "200,000"),
    "cut JSON": ('{"image_id": "a.', JSON, 400, "not JSON"),
    "JSON with a tail": ('{"image_id": "a.png"} x', JSON, 400, "not JSON"),
    "a list": ("[1]", JSON, 400, "list"),
    "a number": ("7", JSON, 400, "int"),
    "null": ("null", JSON, 400, "NoneType"),
    "not a number": ('{"image_id": NaN}', JSON, 400, "NaN"),
    "a key twice": ('{"image_id": "a.png", "image_id": "b"}', JSON, 400, "twice"),
    "a deep nest": ("[" * 90_000, JSON, 400, "deep"),
    "a deep object": ('{"a":' * 30_000, JSON, 400, "deep"),
    "a long number": ('{"image_id": ' + "9" * 9_000 + "}", JSON, 400, "JSON"),
    "latin-1": ('{"image_id": "ä"}'.encode("latin-1"), JSON, 400, "UTF-8"),
    "UTF-16": ('{"image_id": "a"}'.encode("utf-16"), JSON, 400, "UTF-8"),
    "neither": ("{}", JSON, 400, "neither"),
    "both": ('{"image": "eA==", "image_id": "a.png"}', JSON, 400, "both"),
    "a strange key": ('{"image_id": "a.png", "img": 1}', JSON, 400, "img"),
    "an id that is a number": ('{"image_id": 7}', JSON, 400, "string"),
    "an empty id": ('{"image_id": ""}', JSON, 400, "empty"),
    "half a character": ('{"image_id": "\\ud800.png"}', JSON, 400, ""),
    "a very long id": (json.dumps({"image_id": "a" * 5_000}), JSON, 400, "1024"),
    "an absolute id": ('{"image_id": "/etc/passwd"}', JSON, 400, "absolute"),
    "an id that climbs": ('{"image_id": "../a.png"}', JSON, 400, "climbs"),
    "an id with a NUL": ('{"image_id": "a\\u0000.png"}', JSON, 400, "NUL"),
    "an unknown id": ('{"image_id": "z.png"}', JSON, 404, "z.png"),
    "a folder": ('{"image_id": "folder"}', JSON, 404, "folder"),
    "wrong base64": ('{"image": "#"}', JSON, 400, "base64"),
    "base64 of nothing": ('{"image": ""}', JSON, 400, "no bytes"),
    "base64 of text": ('{"image": "aGVsbG8="}', JSON, 415, "JPEG"),
    "a data URL": ('{"image": "data:image/png;base64,aGVsbG8="}', JSON, 400, "data:"),
    "no list": ('{"images": "a.png"}', JSON, 400, "list"),
    "an empty list": ('{"images": []}', JSON, 400, "at least 1"),
    "a list of names": ('{"images": ["a.png"]}', JSON, 400, "images[0]"),
    "a list and more": ('{"images": [], "image_id": "a.png"}', JSON, 400, "image_id"),
    "too long a list": (
        json.dumps({"images": [{"image_id": "a.png"}] * 5}),
        JSON,
        413,
        "5",
    ),
    "an id twice": (
        json.dumps({"images": [{"image_id": "a.png", "prediction_id": "x"}] * 2}),
        JSON,
        400,
        "repeat",
    ),
    "a strange prediction_id": (
        '{"image_id": "a.png", "prediction_id": "a b"}',
        JSON,
        400,
        "prediction_id",
    ),
    "a prediction_id with a tail": (
        '{"image_id": "a.png", "prediction_id": "a\\n"}',
        JSON,
        400,
        "prediction_id",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_with_its_reason(
    client: FlaskClient, tmp_path: Path, case: str
) -> None:
    body, mimetype, status, word = WRONG[case]
    (tmp_path / "images" / "folder").mkdir()

    said = client.post("/score", data=body, content_type=mimetype)

    assert said.status_code == status
    assert said.mimetype == JSON
    assert set(said.json) == {"error"}
    assert word in said.json["error"]
    assert len(said.json["error"]) < 2_000
    assert "Traceback" not in said.text
    assert client.post("/score", json={"image_id": "a.png"}).status_code == 200


def test_one_bad_image_refuses_its_list_and_nothing_is_collected(
    client: FlaskClient, tmp_path: Path
) -> None:
    images = [{"image_id": "a.png"}, {"image": base64(picture(5)[:60])}]

    said = client.post("/score", json={"images": images})

    assert said.status_code == 422
    assert said.json["error"].startswith("images[1]")
    kept = client.post("/score", json={"image_id": "b.png"}).json["prediction_id"]
    assert list(rows_of(tmp_path)) == [kept]
    assert not (tmp_path / "images" / ".online").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(client: FlaskClient) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checked

    # 10 GB of pixels; what they are does not matter, as nobody looks at them.
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    bomb += chunk(b"IDAT", zlib.compress(b"\0" * 100_000, 9)) + chunk(b"IEND", b"")

    said = client.post("/score", data=bomb, content_type=PNG)

    assert said.status_code == 413
    assert "10,000,000,000" in said.json["error"]


def test_a_link_out_of_the_store_is_refused(
    client: FlaskClient, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(picture(9))
    os.symlink(tmp_path / "secret.png", tmp_path / "images" / "link.png")

    said = client.post("/score", json={"image_id": "link.png"})

    assert said.status_code == 400
    assert "link" in said.json["error"]


def test_only_a_post_of_a_plain_body_is_answered(client: FlaskClient) -> None:
    packed = client.post(
        "/score",
        data=picture(),
        content_type=PNG,
        headers={"Content-Encoding": "gzip"},
    )
    asked = client.get("/score")
    lost = client.post("/elsewhere")
    named = client.post("/score", data=b"x", headers={"x-request-id": "x" * 1_000})

    assert packed.status_code == 415
    assert (asked.status_code, asked.headers["Allow"]) == (405, "POST")
    assert lost.status_code == 404
    assert named.status_code == 431
    for response in (packed, asked, lost, named):
        assert set(response.json) == {"error"}


def test_ids_in_header_and_body_may_not_differ(client: FlaskClient) -> None:
    def status(body: dict[str, Any]) -> int:
        headers = {"x-prediction-id": "one"}
        return client.post("/score", json=body, headers=headers).status_code

    assert status({"image_id": "a.png"}) == 200
    assert status({"image_id": "a.png", "prediction_id": "one"}) == 200
    assert status({"image_id": "a.png", "prediction_id": "two"}) == 400
    assert status({"images": [{"image_id": "a.png"}]}) == 400


def fuzzed(n: int) -> Iterator[tuple[bytes, str]]:
    """Bodies that are each wrong in a way of their own."""
    generator = np.random.default_rng(0)
    wrong = [
        (b.encode() if isinstance(b, str) else b, m) for b, m, *_ in WRONG.values()
    ]
    whole = [picture(1, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF")]
    for number in range(n):
        image = whole[number % len(whole)]
        cut = int(generator.integers(0, len(image) - 20))
        way = number % 8
        if way == 0:
            yield image[:cut], PNG
        elif way == 1:
            yield json.dumps({"image": base64(image[:cut])}).encode(), JSON
        elif way == 2:
            yield generator.bytes(int(generator.integers(0, 3_000))), JSON
        elif way == 3:
            yield generator.bytes(int(generator.integers(0, 3_000))), PNG
        elif way == 4:
            text = json.dumps({"images": [{"image_id": "a.png"}] * 4})
            yield text[: int(generator.integers(0, len(text)))].encode(), JSON
        elif way == 5:
            yield image[:12] + generator.bytes(cut), PNG
        elif way == 6:
            yield b"x" * int(generator.integers(200_001, 2_000_000)), PNG
        else:
            yield wrong[number // 8 % len(wrong)]


# Pillow warns of what it reads over.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_thousand_wrong_bodies_cost_no_memory(client: FlaskClient) -> None:
    def ask(n: int) -> None:
        for body, mimetype in fuzzed(n):
            said = client.post("/score", data=body, content_type=mimetype)
            assert 400 <= said.status_code < 500, (body[:80], said.text)
            assert said.json["error"]

    ask(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ask(1_000)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert grown_kb < 30_000
    assert client.post("/score", json={"image_id": "a.png"}).status_code == 200


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k == "$ref")
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def documents(client: FlaskClient) -> dict[str, Any]:
    return {
        version: client.get(f"/swagger.json?version={version}").json
        for version in ("2", "3", "3.1")
    }


def test_the_openapi_documents_are_sound_and_say_the_same(client: FlaskClient) -> None:
    found = documents(client)

    assert found["2"]["swagger"] == "2.0"
    assert found["3"]["openapi"] == "3.0.3"
    assert found["3.1"] == {**found["3"], "openapi": "3.1.0"}
    assert found["2"]["definitions"] == json.loads(
        json.dumps(found["3"]["components"]["schemas"]).replace(
            "#/components/schemas/", "#/definitions/"
        )
    )
    for document in found.values():
        for reference in references(document):
            place = document
            for part in reference.removeprefix("#/").split("/"):
                place = place[part]
        operations = {
            (path, method): operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        assert set(operations) == {
            ("/", "get"),
            ("/ready", "get"),
            ("/health", "get"),
            ("/score", "post"),
        }
        for operation in operations.values():
            assert operation["operationId"]
            assert all(
                answer["description"] for answer in operation["responses"].values()
            )
        answered = set(operations["/score", "post"]["responses"])
        assert answered == {"200", "400", "404", "405", "413", "415", "422", "503"}
    assert "requestBody" not in json.dumps(found["2"])


def test_what_the_service_says_is_what_its_document_says(client: FlaskClient) -> None:
    document = documents(client)["3"]

    def check(name: str, value: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", **document}
        jsonschema.Draft202012Validator(schema).validate(value)

    one = client.post("/score", data=picture(), content_type=PNG).json
    several = {"images": [{"image_id": "a.png", "prediction_id": "x"}]}
    check("Prediction", one)
    check("Images", several)
    check("Predictions", client.post("/score", json=several).json)
    check("Error", client.get("/score").json)
    check("Ready", client.get("/").json)
    check("Health", client.get("/health").json)
    with pytest.raises(jsonschema.ValidationError):
        check("Image", {"img": "x"})
