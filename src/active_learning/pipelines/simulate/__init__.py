"""Simulate: the loop replayed on labeled images, strategy against strategy."""
