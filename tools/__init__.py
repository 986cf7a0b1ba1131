"""What a developer of r1pipe runs by hand: lock the dependencies, compose the parameters."""
