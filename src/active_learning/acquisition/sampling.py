"""Random choice without state: a key that belongs to an image and a model version."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from active_learning.acquisition.pool import FloatArray


def sampling_keys(image_ids: Iterable[str], model_version: int) -> FloatArray:
    """Hash names into uniform numbers, alike on every machine and in every order.

    Args:
        image_ids: N names.
        model_version: Another version draws afresh.

    Returns:
        (N,) uniform in [0, 1): the top 53 bits of BLAKE2b, the precision of a double.
    """
    salt = f"\0{model_version}".encode()
    digests = b"".join(
        blake2b(name.encode() + salt, digest_size=8).digest() for name in image_ids
    )
    return (np.frombuffer(digests, dtype=">u8") >> np.uint64(11)) / 2.0**53
