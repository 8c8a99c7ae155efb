"""The steps of the loop, one package each; they meet only in the catalog."""
