"""Start: the first label requests, before there is a model to ask."""
