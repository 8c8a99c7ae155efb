"""Data: the default images, as PNG files in a folder per class."""
