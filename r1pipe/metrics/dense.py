"""Dense captioning's m@kIoU: which caption speaks for which object.

Source: Scan2Cap (Chen et al. 2021): a caption counts for an object where its box overlaps by IoU k, every sentence stands between
`sos` and `eos`, and an object without such a caption is scored with the empty sentence `sos eos`. Evaluators differ in who
chooses: the object (Chat-Scene and LEO, who ask for one caption an object), the prediction (Scan2Cap, Vote2Cap-DETR, LL3DA), or
an optimal matching of both (Scan2Cap's later benchmark).

Shape suffixes: O objects, C captions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from r1pipe.geometry import Box, OrientedBox, boxes_array, giou, iou


class Caption(NamedTuple):
    """A sentence about a box."""

    box: Box | OrientedBox
    text: str


class Spoken(NamedTuple):
    """The caption that speaks for an object, with the IoU of their boxes."""

    text: str
    iou: float


SILENCE = Spoken("", 0.0)
"""What an object gets that nobody spoke about."""
EMPTY = "sos eos"
"""The sentence that it is scored as. The public evaluators wrap an empty caption to two spaces, which ROUGE-L sees."""


def assign(captions: Sequence[Caption], boxes: Sequence[Box | OrientedBox], *, epsilon: float = 0.0) -> list[Spoken]:
    """For each object the caption whose box overlaps it most, the first on ties; one caption may speak for several."""
    if not captions or not boxes:
        return [SILENCE] * len(boxes)
    overlap_OC = iou(boxes_array(boxes), boxes_array([caption.box for caption in captions]), epsilon=epsilon)
    best_O = overlap_OC.argmax(axis=1)
    return [Spoken(captions[c].text, float(overlap_OC[o, c])) for o, c in enumerate(np.asarray(best_O).tolist())]


def candidates(
    captions: Sequence[Caption], boxes: Sequence[Box | OrientedBox], *, by_centre: bool, epsilon: float = 0.0
) -> list[list[Spoken]]:
    """For each object, in the captions' order, those that speak for it where each caption speaks for one object.

    That object is the one that the caption's box overlaps most, the first on ties, or the one of the nearest centre.
    """
    spoken: list[list[Spoken]] = [[] for _ in boxes]
    if not captions or not boxes:
        return spoken
    objects_O, captions_C = boxes_array(boxes), boxes_array([caption.box for caption in captions])
    overlap_OC = iou(objects_O, captions_C, epsilon=epsilon)
    chosen_C = _nearest(objects_O, captions_C) if by_centre else overlap_OC.argmax(axis=0)
    for c, o in enumerate(np.asarray(chosen_C).tolist()):
        spoken[o].append(Spoken(captions[c].text, float(overlap_OC[o, c])))
    return spoken


def matched(
    captions: Sequence[Caption], boxes: Sequence[Box | OrientedBox], *, counts_overlap: bool, epsilon: float = 0.0
) -> list[list[Spoken]]:
    """For each object its own caption, of the one-to-one matching with the highest sum of GIoU; none where captions run out.

    `counts_overlap` is `giou`'s.
    """
    spoken: list[list[Spoken]] = [[] for _ in boxes]
    if not captions or not boxes:
        return spoken
    objects_O, captions_C = boxes_array(boxes), boxes_array([caption.box for caption in captions])
    overlap_CO = iou(captions_C, objects_O, epsilon=epsilon)
    pairs = linear_sum_assignment(-giou(captions_C, objects_O, counts_overlap=counts_overlap))
    for c, o in zip(*(places.tolist() for places in pairs), strict=True):
        spoken[o] = [Spoken(captions[c].text, float(overlap_CO[c, o]))]
    return spoken


def _nearest(objects_O: NDArray[np.float64], captions_C: NDArray[np.float64]) -> NDArray[np.intp]:
    gap_OC3 = objects_O[:, None, :3] - captions_C[None, :, :3]
    return np.asarray((gap_OC3**2).sum(axis=-1).argmin(axis=0))


def wrap(text: str) -> str:
    """A sentence between its start and end words.

    >>> wrap("a chair"), wrap("")
    ('sos a chair eos', 'sos  eos')
    """
    return f"sos {text} eos"


def unwrap(text: str) -> str:
    """A sentence without its start and end words, where it has both.

    >>> unwrap("sos a chair eos"), unwrap("sos eos"), unwrap("a chair")
    ('a chair', '', 'a chair')
    """
    if text.split()[:1] == ["sos"] and text.split()[-1:] == ["eos"] and len(text.split()) > 1:
        return text.strip().removeprefix("sos").removesuffix("eos").removeprefix(" ").removesuffix(" ")
    return text
