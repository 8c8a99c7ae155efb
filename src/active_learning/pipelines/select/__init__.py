"""Select: the few images that a human should label next."""
