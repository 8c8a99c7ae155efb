import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from PIL import Image

from active_learning.errors import ImageError
from active_learning.imaging import Preprocessing, UInt8Array
from active_learning.imaging.decode import decode

FORMATS = ["PNG", "JPEG", "BMP", "WEBP", "TIFF"]
MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"]
LIMIT = 10_000


def preprocessing(height: int = 2, width: int = 2, channels: int = 3) -> Preprocessing:
    return Preprocessing.model_validate(
        {
            "height": height,
            "width": width,
            "channels": channels,
            "mean": (0.0,) * channels,
            "std": (1.0,) * channels,
        }
    )


def encoded(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def gray(pixels: ArrayLike) -> Image.Image:
    return Image.fromarray(np.array(pixels, dtype=np.uint8))


def noise(side: int = 32) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))


def pixels(data: bytes, **shape: int) -> UInt8Array:
    return decode(data, preprocessing(**shape), LIMIT)


def png_of(*parts: bytes) -> bytes:
    """A PNG file of these chunks, kind first; checksums are right."""
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(side: int, kind: bytes = b"\x08\0\0\0\0") -> bytes:
    return b"IHDR" + struct.pack(">II", side, side) + kind


def bomb(side: int) -> bytes:
    """A PNG file of a hundred bytes that promises side x side pixels."""
    return png_of(header(side), b"IDAT")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_size_and_channels_asked_for(
    name: str, channels: int
) -> None:
    red = Image.new("RGB", (40, 30), (200, 0, 0))

    result = pixels(encoded(red, name), height=7, width=5, channels=channels)

    assert result.shape == (7, 5, channels)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    expected = [60] if channels == 1 else [200, 0, 0]
    np.testing.assert_allclose(result[3, 2], expected, atol=3)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_shows_white_as_white(mode: str) -> None:
    if mode == "I;16":
        white = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    else:
        white = Image.new("RGB", (4, 4), "white").convert(mode)

    assert (pixels(encoded(white, "TIFF" if mode == "CMYK" else "PNG")) == 255).all()


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    deep = Image.fromarray(np.array([[0, 200, 32896, 65535]], dtype=np.uint16))

    result = pixels(encoded(deep), height=1, width=4, channels=1)

    assert result.ravel().tolist() == [0, 1, 128, 255]


def test_pixels_without_a_known_range_are_refused() -> None:
    floats = Image.fromarray(np.array([[0.5, 2.0]], dtype=np.float32))

    with pytest.raises(ImageError, match="without a known range"):
        pixels(encoded(floats, "TIFF"))


def test_what_is_transparent_lies_on_white() -> None:
    hidden = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    palette = Image.new("P", (2, 2), 3)
    palette.putpalette(bytes(3 * 256))

    assert (pixels(encoded(hidden)) == 255).all()
    assert (pixels(encoded(palette, transparency=3)) == 255).all()


def test_a_photo_is_turned_as_its_camera_was_held() -> None:
    left_black = gray([[0, 255], [0, 255]])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise

    result = pixels(encoded(left_black, exif=exif), channels=1)

    assert result[..., 0].tolist() == [[0, 0], [255, 255]]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in ("white", "black")]

    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])

    assert pixels(data).min() > 250


def test_the_content_decides_and_not_the_name() -> None:
    assert pixels(encoded(noise(), "JPEG")).shape == (2, 2, 3)


def test_an_empty_file_says_so() -> None:
    with pytest.raises(ImageError, match="0 bytes"):
        pixels(b"")


@pytest.mark.parametrize(
    "data", [b"hello, I am a text file", b"BM", b"GIF89a" + bytes(20)]
)
def test_a_file_that_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"holds no|damaged"):
        pixels(data)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", FORMATS)
def test_half_an_image_is_no_image(name: str, part: float) -> None:
    data = encoded(noise(), name)

    with pytest.raises(ImageError, match="damaged or cut off"):
        pixels(data[: int(len(data) * part)])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [101, 12_000, 20_000])
def test_a_decompression_bomb_is_measured_and_not_unpacked(side: int) -> None:
    with pytest.raises(ImageError, match=f"{side} x {side} pixels .* more than max_p"):
        pixels(bomb(side))


@pytest.mark.filterwarnings("error")
def test_a_limit_above_pillows_own_is_believed() -> None:
    large = encoded(Image.new("1", (12_000, 12_000)))

    result = decode(large, preprocessing(channels=1), max_pixels=144_000_000)

    assert result.max() == 0


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", FORMATS)
def test_damage_anywhere_gives_pixels_or_an_image_error(name: str) -> None:
    data = encoded(noise(), name)
    generator = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(data)
        for place in generator.integers(0, len(data), 3):
            broken[place] = generator.integers(256)
        try:
            result = pixels(bytes(broken))
        except ImageError:
            continue
        assert result.shape == (2, 2, 3)


COMMENT = b"tEXtComment\0the same pixels"


def outcome(data: bytes, channels: int) -> object:
    try:
        return pixels(data, height=9, width=9, channels=channels).tolist()
    except ImageError as exc:
        return str(exc)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("side", [1, 2, 9, 32, 100])
def test_a_plain_png_file_is_read_as_pillow_reads_it(
    side: int, mode: str, channels: int
) -> None:
    image = noise(side).convert(mode)
    expected = image.convert("L" if channels == 1 else "RGB")

    result = pixels(encoded(image), height=side, width=side, channels=channels)

    np.testing.assert_array_equal(result.squeeze(), np.asarray(expected).squeeze())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [b"\x08\0\0\0\0", b"\x08\2\0\0\0"])
def test_packed_pixels_are_judged_alike_whatever_else_the_file_holds(
    kind: bytes, channels: int
) -> None:
    generator = np.random.default_rng(2)
    n_bytes = 9 * (3 if kind[1] else 1)
    rows = generator.integers(0, 256, (9, n_bytes + 1), dtype=np.uint8)
    rows[:, 0] = generator.integers(0, 5, 9)
    for number in range(300):
        packed = bytearray(zlib.compress(rows.tobytes()))
        if number:
            packed[generator.integers(len(packed))] = generator.integers(256)
        if number % 3 == 2:
            del packed[generator.integers(len(packed)) :]
        halves = [b"IDAT" + packed[:40], b"IDAT" + packed[40:]]

        alone = outcome(png_of(header(9, kind), *halves, b"IEND"), channels)

        beside = png_of(header(9, kind), COMMENT, *halves, b"IEND")
        assert alone == outcome(beside, channels)


@pytest.mark.parametrize(
    "data",
    [
        png_of(),
        png_of(b"IEND"),
        png_of(header(2), b"IEND"),
        png_of(header(0), b"IDAT", b"IEND"),
        png_of(header(2)[:-1], b"IDAT", b"IEND"),
        png_of(header(2, b"\x08\0\0\0\2"), b"IDAT", b"IEND"),
        png_of(b"IDAT", header(2), b"IEND"),
    ],
)
def test_a_png_file_without_pixels_is_damaged(data: bytes) -> None:
    with pytest.raises(ImageError, match="damaged or cut off"):
        pixels(data)


@pytest.mark.parametrize("place", [20, 60, -5])
def test_a_wrong_checksum_is_judged_by_pillow(place: int) -> None:
    data = bytearray(encoded(noise().convert("L")))
    data[place] ^= 1

    beside = bytes(data[:33]) + png_of(COMMENT)[8:] + bytes(data[33:])
    assert outcome(bytes(data), 1) == outcome(beside, 1)
