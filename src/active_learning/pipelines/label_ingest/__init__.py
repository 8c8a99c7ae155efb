"""Label-ingest: answers come back, are checked and become the next training set."""
