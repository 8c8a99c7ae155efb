"""What lies outside the process: labeling tools, telemetry, deployments."""
