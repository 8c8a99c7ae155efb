"""What a service said is told without what opens it."""

import pytest

from active_learning.services.redaction import cause, redacted

SECRET = "c2VjcmV0LW9mLXRoZS1zYXM%3D"
MESSAGES = [
    f"Max retries exceeded with url: /loop/a.bin?sv=2023-11-03&sig={SECRET} (refused)",
    f"GET https://x.blob.core.windows.net/c/a%20b.png?se=1&sig={SECRET}: 403",
    f"'https://x/c?sig={SECRET}'",
    f"the header was Bearer {SECRET}",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_secret_is_left_out_and_the_rest_stays(message: str) -> None:
    said = redacted(OSError(message))

    assert SECRET not in said
    assert "sig=" not in said
    assert said[:8] == message[:8]


@pytest.mark.parametrize(
    "message",
    ["Is it there? Then try again.", "2 of 3 rows (x=1?y) are wrong", "Bearer token"],
)
def test_what_is_no_secret_stays(message: str) -> None:
    assert redacted(ValueError(message)) == message


def test_only_the_first_line_is_told() -> None:
    assert redacted(ValueError("\nfirst\nsecond")) == "first"
    assert redacted(ValueError()) == "ValueError"


@pytest.mark.parametrize("message", MESSAGES)
def test_a_chain_that_holds_a_secret_is_not_shown(message: str) -> None:
    clean, dirty = ValueError("clean"), ValueError("dirty")
    dirty.__context__ = OSError(message)

    assert cause(clean) is clean
    assert cause(dirty) is None
