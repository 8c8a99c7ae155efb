"""Triggers: a new export starts one run, however often it is heard of.

``exports`` says what lies in a place and when it has changed, ``ledger`` which of that
finished runs have taken in, whoever tells of it. ``watcher`` looks again and again and
starts runs; ``process`` is a run as a process of its own.
"""
