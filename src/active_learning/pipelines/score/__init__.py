"""Score: what the champion says of images it has not seen."""
