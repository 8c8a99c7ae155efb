"""What stands in for a service that cannot run here, at its HTTP border."""
