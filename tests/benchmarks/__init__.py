"""How fast the project is, as ratios measured in one run; see ``__main__``."""
