"""What a job's definition must not hold."""

import re
from collections.abc import Mapping

from active_learning.services.jobs import JobError

_NAMES = re.compile(
    r"KEY|SECRET|TOKEN|PASSW|PWD|CREDENTIAL|CONNECTION_?STRING|CERTIFICATE"
    r"|(^|_)(SAS|PAT|AUTH|PASS)(_|$)|IDENTITY_HEADER",
    re.IGNORECASE,
)
# Signatures and keys of Azure Storage, tokens, and a password in a URL.
_VALUES = re.compile(
    r"[?&;]sig=|AccountKey=|SharedAccess(Key|Signature)=|-----BEGIN|\beyJ[\w-]{10,}\."
    r"|://[^/\s:@]+:[^/\s@]+@",
    re.IGNORECASE,
)
_IN_WORDS = re.compile(
    r"(?P<what>[?&;]sig=|AccountKey=|SharedAccess(?:Key|Signature)=|Bearer )[^&;\s\"']+"
    r"|\beyJ[\w-]{10,}\.[\w.-]*",
    re.IGNORECASE,
)
# A shorter value would be found in any text.
_LEAST = 8


def sounds_secret(name: str) -> bool:
    """Whether a variable of this name is likely to hold a secret."""
    return _NAMES.search(name) is not None


def looks_secret(value: str) -> bool:
    """Whether a value has the form of a key, a token or a signature."""
    return _VALUES.search(value) is not None


def refuse_secrets(definition: str, environ: Mapping[str, str]) -> None:
    """Make sure that a job's definition gives no secret away.

    Args:
        definition: As it is submitted.
        environ: Of this process; the values of variables that sound like secrets must
            not be in it.

    Raises:
        JobError: There is one; the error does not repeat it.
    """
    found = [
        name
        for name, value in sorted(environ.items())
        if sounds_secret(name) and len(value) >= _LEAST and value in definition
    ]
    if found:
        raise JobError(
            f"The job would hold the values of {len(found)} secret variables; the "
            f"first is {found[0]}. Everybody in the workspace can read a job: let its "
            "identity open what it needs, and leave the value out of --params and conf."
        )
    for number, line in enumerate(definition.splitlines(), start=1):
        if looks_secret(line):
            raise JobError(
                f"Line {number} of the job has the form of a key, a token or a signed "
                f"URL; it begins {line.strip()[:16]!r}. Everybody in the workspace can "
                "read a job: let its identity open what it needs."
            )


def without_secrets(text: str) -> str:
    """A message of a server without the signatures and tokens in it."""
    return _IN_WORDS.sub(lambda found: f"{found['what'] or ''}***", text)
