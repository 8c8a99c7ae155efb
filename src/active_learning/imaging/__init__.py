"""Images: where they lie, what they are called, how they become pixels, once.

Names are loaded when first used, so that a pipeline which needs ``Preprocessing``
alone pays for neither Pillow nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from active_learning.imaging.preprocessing import Preprocessing

if TYPE_CHECKING:
    from active_learning.imaging.labeled import LabeledImages
    from active_learning.imaging.pixels import IntArray, PixelArray, UInt8Array
    from active_learning.imaging.store import Decoded, ImageStore

_HOMES = {
    "Decoded": "store",
    "ImageStore": "store",
    "IntArray": "pixels",
    "LabeledImages": "labeled",
    "PixelArray": "pixels",
    "UInt8Array": "pixels",
}

__all__ = [
    "Decoded",
    "ImageStore",
    "IntArray",
    "LabeledImages",
    "PixelArray",
    "Preprocessing",
    "UInt8Array",
]


def __getattr__(name: str) -> Any:
    """Load a name's module when the name is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
