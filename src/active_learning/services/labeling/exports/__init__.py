"""Exports of labeling tools: recognized by what they hold, read into one table.

A format is a module: ``fits`` says whether a document is of it, ``read`` gives its
answers in the columns of ``schemas.ANSWERS``. What fits none of them, or two, is
refused with the reason.
"""

from active_learning.services.labeling.exports.files import read
from active_learning.services.labeling.exports.folder import read_folder

__all__ = ["read", "read_folder"]
