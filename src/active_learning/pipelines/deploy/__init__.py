"""Deploy: a challenger that is no worse takes over, and one command takes it back."""
