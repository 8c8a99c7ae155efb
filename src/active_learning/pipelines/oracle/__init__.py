"""Oracle: answers in the labelers' place, where the labels are known."""
