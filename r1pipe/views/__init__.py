"""Cameras, the renderer, and how much a view has to do with a question."""
