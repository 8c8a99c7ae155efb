"""The tables of Azure Data Explorer, made from ``schemas.TABLES``.

Rows of a table with a key land in ``raw_<table>``; ``<table>`` is a materialized view
of it that has each key once, so that the same row sent twice counts once for every
reader and a query finds the names it knows. ``commands`` writes the management commands
that make all this, each of which may be run again; ``drift`` compares a cluster with
the code; ``azure`` runs the commands; ``cli`` is ``kedro azure-tables``.
"""
