"""A candidate view as the selector saw it."""

from typing import NamedTuple


class ViewChoice(NamedTuple):
    """A candidate view, its scores for a question, and whether the model looks at it."""

    view: int
    chosen: bool
    text3d: float
    image3d: float
    clip: float
    utility: float
