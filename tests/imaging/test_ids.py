import pytest

from active_learning.errors import ImageIdError
from active_learning.imaging.ids import check_image_ids, has_image_suffix


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/a.png",
        "C:/a.png",
        "..",
        "../a.png",
        "a/../../b.png",
        "./a.png",
        "a//b.png",
        "a/",
        "a\\b.png",
        "a\0.png",
        "memory://a.png",
        "\udcff.png",
    ],
)
def test_a_name_that_is_no_place_inside_the_store_is_refused(name: str) -> None:
    with pytest.raises(ImageIdError, match=r"1 of 2 image_ids .* the first is"):
        check_image_ids(["good.png", name])


@pytest.mark.parametrize(
    "name", ["a.png", "Größe/Ärmel lang.png", "a/..b/...png", "日.png"]
)
def test_a_path_inside_the_store_is_accepted(name: str) -> None:
    check_image_ids([name])


def test_the_case_of_a_suffix_does_not_matter() -> None:
    assert has_image_suffix("a/B.JPeG")


@pytest.mark.parametrize("name", ["png", ".png", "a.png/b", "a.gif", "a"])
def test_other_files_are_not_taken_for_images(name: str) -> None:
    assert not has_image_suffix(name)
