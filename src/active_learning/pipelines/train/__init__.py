"""Train: a challenger that goes on from the champion, and how good it is."""
