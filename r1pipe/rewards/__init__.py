"""One completion to one number, or None where the reward does not apply."""
