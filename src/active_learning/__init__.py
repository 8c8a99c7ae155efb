"""Teach an image classifier with as few human labels as possible."""

__version__ = "0.1.0"
