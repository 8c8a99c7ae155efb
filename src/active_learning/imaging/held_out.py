"""Images of the frozen test set."""

import pandas as pd

from active_learning.errors import TestSetError
from active_learning.imaging.preprocessing import Preprocessing
from active_learning.imaging.store import Decoded, ImageStore


def decode_held_out(
    images: ImageStore, test_set: pd.DataFrame, preprocessing: Preprocessing
) -> Decoded:
    """Decode test images, all of them.

    Args:
        images: Where they are.
        test_set: ``image_id``.
        preprocessing: How each becomes a network's input.

    Raises:
        TestSetError: One cannot be read any more.
    """
    decoded = images.pixels(test_set["image_id"].tolist(), preprocessing)
    if len(decoded.set_aside):
        raise TestSetError(
            f"{len(decoded.set_aside)} of {len(test_set)} images of the frozen test "
            "set cannot be read; the first is "
            f"{decoded.set_aside['image_id'].iloc[0]!r}: "
            f"{decoded.set_aside['reason'].iloc[0]}. Bring them back: figures on fewer "
            "images cannot be compared."
        )
    return decoded
