"""Networks, fine-tuning and scoring.

``protocol`` and ``recipe`` are light: a pipeline's signature needs no torch. The other
modules import it, and are imported by the node that computes.
"""
