"""What the function does with a message: read, claim, dispatch, or set aside."""
