"""Scoring: a released model answers, one request or a whole store at a time.

``model`` reads a release and answers from it; ``export`` makes one from a trained
classifier. Only the latter imports torch.
"""
