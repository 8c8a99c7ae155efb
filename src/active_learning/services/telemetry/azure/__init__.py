"""Telemetry on Azure Data Explorer; ``adx.AdxTelemetry`` is both sink and service.

``clients`` makes the library's clients and bounds their waiting, ``faults`` says what
an error of theirs means and tries again, ``wire`` turns rows into lines and answers
into frames, ``questions`` holds the KQL that the tables themselves are asked.
"""
