"""What the expectations about samples look at: where each belongs, what it gives away, and its boxes."""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from r1pipe.datasets import Sample
from r1pipe.geometry import Box
from r1pipe.params.section import Split
from r1pipe.response import identifiers
from r1pipe.validation.evidence import Extent, box_table
from r1pipe.validation.leaks import leaks

_DECIMAL = re.compile(r"-?\d+\.\d+")
_ROUNDING_M = 0.051
"""A coordinate written with one decimal is that far off, at most."""


def samples_table(
    samples: Sequence[Sample],
    splits: Mapping[str, Split],
    extents: Mapping[str, Extent],
    *,
    asked: Collection[str],
    drafted: Collection[str],
) -> pd.DataFrame:
    """One row a sample.

    Args:
        samples: of every split.
        splits: of every scene by its id.
        extents: of every scene by its id.
        asked: the ids of those that `synthesize` was to draft.
        drafted: the ids of those that a teacher wrote a text for.
    """
    shared = leaks(samples)
    table = pd.DataFrame(
        {
            "id": [s.id for s in samples],
            "task": [s.task for s in samples],
            "source": [s.source for s in samples],
            "question": [s.question.strip() for s in samples],
            "question_words": [len(s.question.split()) for s in samples],
            "answer_words": [len(s.answers[0].split()) if s.answers else None for s in samples],
            "split_of_scene": [splits.get(s.scene_id) == s.split for s in samples],
            "place": [f"a {s.split} sample of {s.scene_id} in {splits.get(s.scene_id, 'no split')}" for s in samples],
            "has_reference": [s.task == "grounding" or any(a.strip() for a in s.answers) for s in samples],
            "gives_away": [_gives_away(s) for s in samples],
            "leak": [shared[s.id].likeness if s.id in shared else 0.0 for s in samples],
            "leaks_to": [f"trained as {shared[s.id].trained}" if s.id in shared else "" for s in samples],
            "asked_before": _repeated(samples),
            "box_error": [_box_error(s, extents.get(s.scene_id)) for s in samples],
            "rotation": [None if s.pose is None else float(np.linalg.norm(s.pose.rotation)) for s in samples],
            "has_draft": [s.id in drafted if s.id in asked else None for s in samples],
        }
    )
    return table.join(box_table([(extents.get(s.scene_id), s.boxes) for s in samples]))


def _gives_away(sample: Sample) -> bool:
    """Whether a prompt holds a box, the identifier that it asks for, or the middle or size of a target in numbers."""
    prompt = " ".join([*sample.history, sample.question])
    if "<box>" in prompt or (sample.task == "grounding" and identifiers(prompt)):
        return True
    numbers = np.array(_DECIMAL.findall(prompt), dtype=float)
    return any(_holds(numbers, part) for box in sample.boxes for part in (box.centre, box.size))


def _holds(numbers: np.ndarray[tuple[int], np.dtype[np.float64]], part: Sequence[float]) -> bool:
    """Whether three numbers stand one after the other, up to rounding."""
    if len(numbers) < len(part):
        return False
    windows = np.lib.stride_tricks.sliding_window_view(numbers, len(part))
    return bool((np.abs(windows - np.asarray(part)) < _ROUNDING_M).all(axis=1).any())


def _repeated(samples: Sequence[Sample]) -> list[bool]:
    """Whether the same thing was asked about the same scene before."""
    seen: set[tuple[object, ...]] = set()
    repeated = []
    for s in samples:
        asked = (s.scene_id, s.task, s.question.lower(), s.pose, s.history, s.object_ids)
        repeated.append(asked in seen)
        seen.add(asked)
    return repeated


def _box_error(sample: Sample, extent: Extent | None) -> float | None:
    """How far a target box is from that of its object; infinite where the scene has no such object."""
    if extent is None or not sample.object_ids:
        return None
    pairs: list[tuple[int, Box]] = list(zip(sample.object_ids, sample.boxes, strict=False))
    if len(pairs) != len(sample.object_ids) or any(i not in extent.objects for i, _ in pairs):
        return float("inf")
    return max(float(np.abs(np.subtract(box, extent.objects[i].box)).max()) for i, box in pairs)
