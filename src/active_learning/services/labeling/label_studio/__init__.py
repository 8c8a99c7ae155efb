"""Label Studio: requests become tasks, finished annotations become an export.

``server`` runs one in an environment of its own, ``client`` speaks to any, and ``sync``
is what happens in between. Nothing is remembered here of what was sent or fetched: the
server and the exports that lie there are asked each time.
"""
