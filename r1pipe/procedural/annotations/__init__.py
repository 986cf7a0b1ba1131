"""Annotations of a room, derived from its scene graph and therefore exactly true."""
