"""Many scores to one number, each under a named protocol."""
