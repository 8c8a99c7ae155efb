"""What a tool calls an image becomes its image_id, or a reason; never a guess."""

from collections.abc import Collection

import pytest

from active_learning.services.labeling.references import resolve, without_query

STORE = [
    "pool/abc.jpg",
    "a/x.jpg",
    "b/x.jpg",
    "top.jpg",
    "pool/a b.jpg",
    "pool/100%.jpg",
    "pool/new%20name.jpg",
]


def one(reference: str, asked: Collection[str] = ()) -> tuple[str, str]:
    """The image and the reason for one reference into the store above."""
    row = resolve([reference], asked, lambda: STORE).iloc[0]
    return row["image_id"], row["reason"]


@pytest.mark.parametrize(
    "reference",
    [
        "pool/abc.jpg",
        "./pool/abc.jpg",
        "azureml://subscriptions/S/resourcegroups/RG/workspaces/WS/datastores/DS"
        "/paths/pool/abc.jpg",
        "azureml://datastores/DS/paths/labeling_queue/images/pool/abc.jpg",
        "azureml://datastores/DS/paths/abc.jpg",
        "AmlDatastore://pool/abc.jpg",
        "AmlDatastore://DS/pool/abc.jpg",
        "https://ACCT.blob.core.windows.net/C/labeling_queue/images/pool/abc.jpg?sig=x",
        "https://ACCT.blob.core.windows.net/C/abc.jpg",
        "abfss://C@ACCT.dfs.core.windows.net/pool/abc.jpg",
        "s3://bucket/pool/abc.jpg",
        "https://example.com/files/pool/abc.jpg",
        "/data/local-files/?d=queue/images/pool/abc.jpg",
        "/data/local-files/?d=queue/images/pool/abc.jpg&token=x",
        "http://127.0.0.1:8080/data/local-files/?d=images/pool%2Fabc.jpg",
        "/data/upload/1/ab12cd34-abc.jpg",
        "file:///mnt/images/pool/abc.jpg",
        "/mnt/images/pool/abc.jpg",
        "pool\\abc.jpg",
        "C:\\x\\pool\\abc.jpg",
        "\\\\server\\share\\pool\\abc.jpg",
        "pool%2Fabc.jpg",
        "abc.jpg",
    ],
)
def test_every_spelling_of_an_image_finds_it(reference: str) -> None:
    assert one(reference) == ("pool/abc.jpg", "")


@pytest.mark.parametrize(
    ("reference", "image_id"),
    [
        ("pool/a%20b.jpg", "pool/a b.jpg"),
        ("https://A.blob.core.windows.net/C/pool/a%20b.jpg", "pool/a b.jpg"),
        ("pool/100%.jpg", "pool/100%.jpg"),
        ("https://A.blob.core.windows.net/C/pool/100%25.jpg", "pool/100%.jpg"),
        ("pool/new%20name.jpg", "pool/new%20name.jpg"),
        ("/data/local-files/?d=images/pool/new%2520name.jpg", "pool/new%20name.jpg"),
    ],
)
def test_a_percent_is_taken_as_it_is_and_then_decoded_once(
    reference: str, image_id: str
) -> None:
    assert one(reference) == (image_id, "")


@pytest.mark.parametrize(
    "reference",
    ["../pool/abc.jpg", "pool/../pool/abc.jpg", "x/%2e%2e/pool/abc.jpg", "..\\top.jpg"],
)
def test_a_reference_that_climbs_is_refused(reference: str) -> None:
    image_id, reason = one(reference)

    assert image_id == ""
    assert "climbs out of the store" in reason


def test_the_same_name_in_two_folders_is_refused_and_both_are_named() -> None:
    image_id, reason = one("x.jpg")

    assert image_id == ""
    assert "'a/x.jpg'" in reason
    assert "'b/x.jpg'" in reason


def test_of_two_folders_the_one_that_was_asked_for_is_meant() -> None:
    assert one("x.jpg", asked=["b/x.jpg"]) == ("b/x.jpg", "")


def test_a_folder_that_does_not_fit_is_not_overlooked() -> None:
    image_id, reason = one("/mnt/c/x.jpg")

    assert image_id == ""
    assert "the nearest is 'a/x.jpg'" in reason


def test_an_absolute_path_lacks_no_folders() -> None:
    assert one("/abc.jpg")[0] == ""


@pytest.mark.parametrize("reference", ["pool/abd.jpg", "pool/abc.JPG", "pol/abc.jpg"])
def test_what_is_not_there_is_told_the_nearest(reference: str) -> None:
    assert one(reference) == (
        "",
        f"no image of the store is called {reference!r}; the nearest is 'pool/abc.jpg'",
    )


def test_an_empty_reference_and_an_empty_store_have_reasons() -> None:
    assert one("") == ("", "the image is not named")
    assert resolve(["a.png"], [], list)["reason"].item() != ""


def test_the_longest_ending_that_is_an_image_counts() -> None:
    images = ["x.jpg", "b/x.jpg", "a/b/x.jpg"]
    references = ["/mnt/a/b/x.jpg", "/mnt/c/b/x.jpg", "/mnt/c/x.jpg", "x.jpg"]

    found = resolve(references, ["x.jpg"], lambda: images)

    assert found["image_id"].tolist() == ["a/b/x.jpg", "b/x.jpg", "x.jpg", "x.jpg"]


def test_the_store_is_not_listed_for_what_was_asked_by_name() -> None:
    def never() -> list[str]:
        raise AssertionError("nothing was left over")

    found = resolve(["a.png", "b.png"], ["b.png", "a.png"], never)

    assert found["image_id"].tolist() == ["a.png", "b.png"]
    assert found["reason"].tolist() == ["", ""]


def test_there_is_a_row_for_each_reference_in_order() -> None:
    references = ["b/x.jpg", "nowhere.jpg", "b/x.jpg", "top.jpg"]

    found = resolve(references, ["top.jpg"], lambda: STORE)

    assert found["image_id"].tolist() == ["b/x.jpg", "", "b/x.jpg", "top.jpg"]
    assert (found["reason"] != "").tolist() == [False, True, False, False]
    assert resolve([], [], lambda: STORE).columns.tolist() == ["image_id", "reason"]


@pytest.mark.parametrize(
    ("reference", "kept"),
    [
        ("https://a.blob/c/x.jpg?sv=1&sig=hunter2", "https://a.blob/c/x.jpg"),
        ("https://me:hunter2@a.blob/c/x.jpg", "https://a.blob/c/x.jpg"),
        ("abfss://C@ACCT/x.jpg", "abfss://C@ACCT/x.jpg"),
        ("pool/x.jpg?sv=1&sig=hunter2", "pool/x.jpg"),
        ("/data/upload/x.jpg?token=hunter2", "/data/upload/x.jpg"),
        ("/data/local-files/?d=a/x.jpg&sig=hunter2", "/data/local-files/?d=a/x.jpg"),
        ("pool/what?.png", "pool/what?.png"),
        ("x.jpg", "x.jpg"),
    ],
)
def test_a_query_is_cut_off_where_it_may_hold_a_token(
    reference: str, kept: str
) -> None:
    assert without_query(reference) == kept


def test_a_reason_does_not_hold_a_token() -> None:
    reference = "https://a.blob.core.windows.net/c/no.jpg?sv=1&sig=hunter2"

    assert "hunter2" not in one(reference)[1]


@pytest.mark.parametrize(
    "reference",
    [
        "azureml://subscriptions/S/workspaces/WS/datastores/DS/paths/pool/abc.jpg",
        "AmlDatastore://pool/abc.jpg",
        "https://ACCT.blob.core.windows.net/C/pool/abc.jpg",
    ],
)
def test_a_url_of_an_asked_image_needs_no_list_of_the_store(reference: str) -> None:
    def known() -> list[str]:
        raise AssertionError("the store was listed")

    found = resolve([reference, "pool/abc.jpg"], ["pool/abc.jpg"], known)

    assert found["image_id"].tolist() == ["pool/abc.jpg", "pool/abc.jpg"]
    assert found["reason"].tolist() == ["", ""]


def test_a_url_that_may_mean_a_longer_name_is_looked_for_in_the_store() -> None:
    url = "https://example.com/a/x.jpg"

    found = resolve([url], ["x.jpg"], lambda: ["x.jpg", "a/x.jpg"])

    assert found["image_id"].tolist() == ["a/x.jpg"]
