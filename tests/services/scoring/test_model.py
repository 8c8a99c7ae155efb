"""A release answers as it was exported, or says why it does not."""

import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.learning.builders import digits, noise, pixels, train

from active_learning.errors import CheckpointError, SettingsError
from active_learning.imaging import IntArray, PixelArray, UInt8Array
from active_learning.learning.module import ImageClassifier
from active_learning.services.scoring.export import export
from active_learning.services.scoring.model import InferenceModel, find_release

IMAGES, TARGETS = digits(0, 100)
CLASSES = [str(number) for number in range(10)]


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    return train(
        IMAGES, TARGETS, classes=CLASSES, recipe={"min_steps": 120, "averaging": 0.9}
    )


@pytest.fixture(scope="module")
def exported(
    classifier: ImageClassifier, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("endpoint") / "release"
    export(classifier, IMAGES, folder)
    return folder


@pytest.fixture
def release(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(exported, tmp_path / "release")
    return tmp_path / "release"


def rewrite(release: Path, **changes: Any) -> None:
    """Change what ``model.json`` says."""
    card = json.loads((release / "model.json").read_text())
    (release / "model.json").write_text(json.dumps({**card, **changes}))


def put(release: Path, content: bytes) -> None:
    """Another network, with its own fingerprint."""
    (release / "model.onnx").write_bytes(content)
    rewrite(release, fingerprint=sha256(content).hexdigest())


@pytest.mark.parametrize("n", [0, 1, 2, 37])
def test_any_number_of_images_is_answered_as_the_classifier_does(
    exported: Path, classifier: ImageClassifier, n: int
) -> None:
    batch = IMAGES.take(np.arange(n))

    said = InferenceModel.load(exported).answer(batch)

    assert said.dtype == np.float64
    assert said.shape == (n, 10)
    np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-12)
    expected = classifier.probabilities(pixels(batch), 8, "cpu", "") if n else said
    np.testing.assert_allclose(said, expected, atol=1e-6)
    assert n < 37 or np.ptp(said, axis=0).max() > 0.3  # it does tell them apart


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_probabilities_and_embeddings_do_not_depend_on_the_batch_size(
    exported: Path, classifier: ImageClassifier, batch_size: int
) -> None:
    model = InferenceModel.load(exported)

    said, seen = model.look(IMAGES, batch_size, "cpu", "")

    expected, features = classifier.look(IMAGES, 128, "cpu", "")
    np.testing.assert_allclose(said, expected, atol=1e-6)
    np.testing.assert_allclose(seen, features, atol=1e-4)
    assert seen.dtype == np.float32
    same = model.probabilities(IMAGES, batch_size, "auto", "")
    np.testing.assert_array_equal(same, said)


@pytest.mark.parametrize("threads", [None, 0, 1, 2])
def test_how_many_threads_compute_changes_no_number(
    exported: Path, threads: int | None
) -> None:
    said, seen = InferenceModel.load(exported).look(IMAGES, 16, "cpu", "")

    others = InferenceModel.load(exported, threads).look(IMAGES, 16, "cpu", "")

    np.testing.assert_allclose(others[0], said, atol=1e-7)
    np.testing.assert_allclose(others[1], seen, atol=1e-5)


class Counted(PixelArray):
    """Pixels that know how many of them were in hands at once."""

    def __init__(self) -> None:
        super().__init__([], np.empty(0, np.int64), (28, 28, 1))
        self.most = 0
        self._out: list[weakref.ref[UInt8Array]] = []

    def __len__(self) -> int:
        return len(IMAGES)

    def take(self, rows: IntArray) -> UInt8Array:
        taken = IMAGES.take(rows)
        self._out.append(weakref.ref(taken))
        out = [held for ref in self._out if (held := ref()) is not None]
        self.most = max(self.most, sum(map(len, out)))
        return taken


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_no_more_than_a_batch_is_in_memory_at_once(
    exported: Path, batch_size: int
) -> None:
    counted = Counted()

    InferenceModel.load(exported).probabilities(counted, batch_size, "cpu", "")

    assert 0 < counted.most <= batch_size


def test_what_goes_wrong_with_a_part_stops_the_whole(exported: Path) -> None:
    class Gone(Counted):
        def take(self, rows: IntArray) -> UInt8Array:
            if 50 in rows:
                raise OSError("the disk is gone")
            return super().take(rows)

    with pytest.raises(OSError, match="the disk is gone"):
        InferenceModel.load(exported).look(Gone(), 16, "cpu", "")


def test_no_image_has_no_answer_and_no_embedding(exported: Path) -> None:
    said, seen = InferenceModel.load(exported).look(
        pixels(np.empty((0, 28, 28, 1))), 4, "cpu", ""
    )

    assert said.shape == (0, 10)
    assert len(seen) == 0
    assert seen.shape[1] > 0


def test_it_says_what_the_classifier_says_of_itself(
    exported: Path, classifier: ImageClassifier
) -> None:
    model = InferenceModel.load(exported)

    assert model.model_name == classifier.model_name
    assert model.version == classifier.version
    assert model.classes == classifier.classes
    assert model.preprocessing == classifier.preprocessing
    assert model.lineage == classifier.lineage
    assert model.folder == exported
    content = (exported / "model.onnx").read_bytes()
    assert model.fingerprint == sha256(content).hexdigest()


def test_threads_may_ask_at_once(exported: Path) -> None:
    model = InferenceModel.load(exported)
    batches = [IMAGES.take(np.arange(n, n + 5)) for n in range(0, 100, 5)]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.answer, batches * 4))

    alone = [model.answer(batch) for batch in batches] * 4
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_copy_for_another_process_is_read_from_the_folder(exported: Path) -> None:
    model = InferenceModel.load(exported, threads=1)

    batch = IMAGES.take(np.arange(3))

    np.testing.assert_array_equal(deepcopy(model).answer(batch), model.answer(batch))


def test_an_accelerator_that_is_not_there_is_refused(exported: Path) -> None:
    with pytest.raises(SettingsError, match="'auto' or 'cpu'"):
        InferenceModel.load(exported).probabilities(IMAGES, 8, "gpu", "")


def test_it_starts_without_torch_mlflow_and_kedro(exported: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from active_learning.services.scoring.model import InferenceModel\n"
        "model = InferenceModel.load(Path(sys.argv[1]))\n"
        "print(model.answer(np.zeros((1, 28, 28, 1), np.uint8)).shape)\n"
        "print(*sys.modules)\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script, str(exported)],
        capture_output=True,
        text=True,
        check=True,
    )

    shape, modules = ran.stdout.splitlines()
    assert shape == "(1, 10)"
    heavy = {"torch", "pytorch_lightning", "mlflow", "kedro", "pandas", "onnx"}
    assert not heavy & set(modules.split())


def cut_off(release: Path) -> None:
    content = (release / "model.onnx").read_bytes()
    (release / "model.onnx").write_bytes(content[: len(content) // 2])


def cut_off_and_signed(release: Path) -> None:
    content = (release / "model.onnx").read_bytes()
    put(release, content[: len(content) // 2])


def one_bit(release: Path) -> None:
    content = bytearray((release / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (release / "model.onnx").write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "model.json"),
    "no network": (lambda r: (r / "model.onnx").unlink(), "model.onnx"),
    "no card": (lambda r: (r / "model.json").unlink(), "model.json"),
    "cut off": (cut_off, "SHA-256"),
    "cut off and signed": (cut_off_and_signed, "cannot be loaded"),
    "one bit": (one_bit, "SHA-256"),
    "random bytes": (lambda r: put(r, noise(40).tobytes()), "cannot be loaded"),
    "empty": (lambda r: put(r, b""), "model.onnx"),
    "another's": (lambda r: rewrite(r, fingerprint="0" * 64), "SHA-256"),
    "no fingerprint": (lambda r: rewrite(r, fingerprint="abc"), "fingerprint"),
    "unknown format": (lambda r: rewrite(r, format=2), "format 2"),
    "no format": (lambda r: rewrite(r, format=None), "format None"),
    "a stranger": (lambda r: rewrite(r, mood="good"), "mood"),
    "not a card": (lambda r: (r / "model.json").write_text("[1]"), "model.json"),
    "no JSON": (lambda r: (r / "model.json").write_text('{"format"'), "model.json"),
    "deep": (lambda r: (r / "model.json").write_text("[" * 10**5), "model.json"),
    "no text": (lambda r: (r / "model.json").write_bytes(b"\xff\xfe\0"), "model.json"),
    "a class twice": (lambda r: rewrite(r, classes=["a"] * 10), "twice"),
    "fewer classes": (lambda r: rewrite(r, classes=["a", "b"]), r"\(N, 2\)"),
    "no classes": (lambda r: rewrite(r, classes=[]), "classes"),
    "version 0": (lambda r: rewrite(r, version=0), "version"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_release_is_refused_and_its_file_named(
    release: Path, damage: Callable[[Path], Any], words: str
) -> None:
    damage(release)

    with pytest.raises(CheckpointError, match=words) as caught:
        InferenceModel.load(release)

    assert str(release) in str(caught.value)


def network(
    inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, tuple[int, list[Any]]]
) -> bytes:
    """An ONNX model that computes nothing of interest."""
    zeros = [
        helper.make_node(
            "Constant",
            [],
            [name],
            value=helper.make_tensor(name, kind, [1] * len(shape), [0]),
        )
        for name, (kind, shape) in outputs.items()
    ]
    graph = helper.make_graph(
        zeros,
        "zeros",
        [helper.make_tensor_value_info(name, *slot) for name, slot in inputs.items()],
        [helper.make_tensor_value_info(name, *slot) for name, slot in outputs.items()],
    )
    return signed(graph)


def signed(graph: onnx.GraphProto) -> bytes:
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


UINT8, FLOAT = TensorProto.UINT8, TensorProto.FLOAT
PIXELS = {"pixels": (UINT8, ["N", 28, 28, 1])}
LOGITS, EMBEDDING = (FLOAT, ["N", 10]), (FLOAT, ["N", 4])
STRANGERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no embedding": (PIXELS, {"logits": LOGITS}),
    "other names": (PIXELS, {"a": LOGITS, "b": EMBEDDING}),
    "floats": (
        {"pixels": (FLOAT, ["N", 28, 28, 1])},
        {"logits": LOGITS, "embedding": EMBEDDING},
    ),
    "another size": (
        {"pixels": (UINT8, ["N", 32, 28, 1])},
        {"logits": LOGITS, "embedding": EMBEDDING},
    ),
    "one image only": (
        {"pixels": (UINT8, [1, 28, 28, 1])},
        {"logits": LOGITS, "embedding": EMBEDDING},
    ),
    "other classes": (
        PIXELS,
        {"logits": (FLOAT, ["N", 9]), "embedding": EMBEDDING},
    ),
    "a second input": (
        {**PIXELS, "more": (FLOAT, ["N"])},
        {"logits": LOGITS, "embedding": EMBEDDING},
    ),
}


@pytest.mark.parametrize(("inputs", "outputs"), STRANGERS.values(), ids=STRANGERS)
def test_a_network_with_other_inputs_or_outputs_is_refused(
    release: Path, inputs: dict[str, Any], outputs: dict[str, Any]
) -> None:
    put(release, network(inputs, outputs))

    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        InferenceModel.load(release)


@pytest.mark.parametrize("place", ["{}/w.bin", "w.bin", "../w.bin", "release/w.bin"])
def test_weights_outside_of_the_file_are_not_read(
    release: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    # Whatever a path is relative to, there is a file.
    for folder in (release, release.parent):
        (folder / "w.bin").write_bytes(np.ones(40, np.float32).tobytes())
    monkeypatch.chdir(release)
    model = onnx.load(release / "model.onnx")
    weights = next(w for w in model.graph.initializer if w.data_type == FLOAT)
    size = len(onnx.numpy_helper.to_array(weights).tobytes())
    (release / "w.bin").write_bytes(bytes(size))
    (release.parent / "w.bin").write_bytes(bytes(size))
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    location = place.format(release.parent)
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        weights.external_data.add(key=key, value=value)
    put(release, bytes(model.SerializeToString()))

    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        InferenceModel.load(release)


def test_a_release_is_found_where_a_registry_puts_it(
    release: Path, tmp_path: Path
) -> None:
    assert find_release(release) == release
    assert find_release(tmp_path) == release


@pytest.mark.parametrize("n", [0, 2])
def test_none_or_several_releases_are_no_guess(
    release: Path, tmp_path: Path, n: int
) -> None:
    place = tmp_path / "models"
    place.mkdir()
    for number in range(n):
        shutil.copytree(release, place / str(number))

    with pytest.raises(CheckpointError, match=f"holds {n} releases"):
        find_release(place)
