"""What the inference server finds in its folder: entry script, OpenAPI, logging."""
