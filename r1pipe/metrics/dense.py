"""Dense captioning's m@kIoU: which caption speaks for which object.

Source: Scan2Cap (Chen et al. 2021): a caption counts for an object where its box overlaps by IoU k, every sentence stands between
`sos` and `eos`, and an object without such a caption is scored with the empty sentence `sos eos`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from r1pipe.geometry import Box, boxes_array, iou


class Caption(NamedTuple):
    """A sentence about a box."""

    box: Box
    text: str


class Spoken(NamedTuple):
    """The caption that speaks for an object, with the IoU of their boxes."""

    text: str
    iou: float


SILENCE = Spoken("", 0.0)
"""What an object gets that nobody spoke about."""


def assign(captions: Sequence[Caption], boxes: Sequence[Box]) -> list[Spoken]:
    """For each object the caption whose box overlaps it most, the first on ties."""
    if not captions or not boxes:
        return [SILENCE] * len(boxes)
    overlap_OC = iou(boxes_array(boxes), boxes_array([caption.box for caption in captions]))
    best_O = overlap_OC.argmax(axis=1)
    return [Spoken(captions[c].text, float(overlap_OC[o, c])) for o, c in enumerate(np.asarray(best_O).tolist())]


def wrap(text: str) -> str:
    """A sentence between its start and end words.

    >>> wrap("a chair"), wrap("")
    ('sos a chair eos', 'sos eos')
    """
    return " ".join(("sos", *text.split(), "eos"))
