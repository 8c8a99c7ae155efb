"""Test-set: the images that no round learns from, chosen once."""
