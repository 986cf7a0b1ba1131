"""Whether the chosen views follow the question: other targets should get other views, and views that show the target.

Shape suffixes: N questions, V views, H rows, W columns, P points.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.sample import Sample
from r1pipe.errors import DataError
from r1pipe.metrics.intervals import differences, mean
from r1pipe.views.choice import ViewChoice

TUNED = "grpo"
"""The arm whose choice of views is kept and shown."""

Looks = Sequence[Mapping[str, Any]]
"""Rows of `views-<arm>.jsonl`: task, scene_id, question, and as `views` each candidate view's `ViewChoice`."""


class Sight(NamedTuple):
    """What the candidate cameras of a room see of its objects."""

    points: NDArray[np.int32]
    """`(V, H, W)`, the visible point of each pixel, -1 for none."""

    instance: NDArray[np.int32]
    """`(P,)`, the object of each point."""


class Aim(NamedTuple):
    """A question with one target, and the views that were chosen for it."""

    scene_id: str
    question: str
    target: int
    chosen: frozenset[int]


def look_row(task: str, scene_id: str, question: str, choices: Iterable[ViewChoice]) -> dict[str, Any]:
    """A row of `views-<arm>.jsonl`."""
    views = [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in choice._asdict().items()}
        for choice in choices
    ]
    return {"task": task, "scene_id": scene_id, "question": question, "views": views}


def choices_for(looks: Looks, task: str, scene_id: str, question: str) -> list[ViewChoice]:
    """What was chosen for a question.

    All captions of a room share their views: CLIP reads `describe <obj_003>.` as `describe object.`. A room in which nothing
    was detected near an object is never asked for captions: there are no choices then.

    Raises:
        DataError: if nothing was.
    """
    for row in looks:
        if (row["task"], row["scene_id"]) == (task, scene_id) and (task == "captioning" or row["question"] == question):
            return [ViewChoice(**view) for view in row["views"]]
    if task == "captioning":
        return []
    raise DataError(f"Expected views for {question!r} about scene {scene_id}, found none in {len(looks)} rows.")


def follow(
    looks: Looks, samples: Sequence[Sample], sight: Callable[[str], Sight], *, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """How far the choice depends on the question and finds its target, over grounding questions with one target.

    Args:
        looks: what was chosen for each question.
        samples: where the targets stand.
        sight: what a scene's cameras see.
        resamples: of the bootstrap behind the interval.
        seed: of the bootstrap.

    Returns:
        `pairs`: `n` pairs of questions about one room with different targets, of which `differ` get different views;
        `targets`: of `n` questions, how many have their target visible (one pixel is enough) `in_any_view`,
        `in_chosen_views`, and on average `in_random_views` of the same number and `in_others_views`, those chosen for
        the room's other targets (random ones where it has none); `gain`, chosen less random in percentage points with
        a 95 % interval `low` to `high`; and the percentage of a view's pixels that the target takes, `pixels_chosen`
        and `pixels_all`. Empty where there is no such question.
    """
    aims = list(_aims(looks, samples))
    if not aims:
        return {}
    seen_N4, pixels_N2 = _seen(aims, sight)
    any_N, chosen_N, random_N, others_N = seen_N4.T
    gain = differences({"seen": mean(random_N)}, {"seen": mean(chosen_N)}, resamples=resamples, seed=seed)["seen"]
    targets = {
        "n": len(aims),
        "in_any_view": int(any_N.sum()),
        "in_chosen_views": int(chosen_N.sum()),
        "in_random_views": round(float(random_N.sum()), 2),
        "in_others_views": round(float(others_N.sum()), 2),
        "gain": round(gain.value, 4),
        "low": round(gain.low, 4),
        "high": round(gain.high, 4),
        "pixels_chosen": round(100 * float(pixels_N2[:, 0].mean()), 4),
        "pixels_all": round(100 * float(pixels_N2[:, 1].mean()), 4),
    }
    return {"pairs": _pairs(aims), "targets": targets}


def _aims(looks: Looks, samples: Sequence[Sample]) -> Iterator[Aim]:
    """The questions with one target that views were chosen for, room by room, each once."""
    chosen = {
        (row["scene_id"], row["question"]): frozenset(view["view"] for view in row["views"] if view["chosen"])
        for row in looks
        if row["task"] == "grounding"
    }
    for sample in sorted(samples, key=lambda sample: sample.scene_id):
        key = (sample.scene_id, sample.question)
        if sample.task == "grounding" and len(sample.object_ids) == 1 and key in chosen:
            yield Aim(*key, sample.object_ids[0], chosen.pop(key))


def _pairs(aims: Sequence[Aim]) -> dict[str, float]:
    rooms = [list(group) for _, group in groupby(aims, key=lambda aim: aim.scene_id)]
    pairs = [
        (one, other)
        for room in rooms
        for one, other in combinations(room, 2)
        if one.target != other.target and one.question != other.question
    ]
    return {"n": len(pairs), "differ": sum(one.chosen != other.chosen for one, other in pairs)}


def _seen(aims: Sequence[Aim], sight: Callable[[str], Sight]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How visible each target is.

    Returns:
        `(N, 4)`: whether any view shows it, whether a chosen one does, how likely random ones would, and how often
        those of other targets do; and `(N, 2)`: its share of the pixels of the chosen views and of all.
    """
    seen, pixels = [], []
    for scene_id, room in groupby(aims, key=lambda aim: aim.scene_id):
        group = list(room)
        points_VHW, instance_P = sight(scene_id)
        objects_VHW = np.where(points_VHW >= 0, instance_P[points_VHW], -1)
        for aim in group:
            share_V = (objects_VHW == aim.target).mean(axis=(1, 2))
            kept = sorted(aim.chosen)
            chance = 1 - comb(int((share_V == 0).sum()), len(kept)) / comb(len(share_V), len(kept))
            others = [share_V[sorted(other.chosen)].any() for other in group if other.target != aim.target] or [chance]
            seen.append((share_V.any(), share_V[kept].any(), chance, np.mean(others)))
            pixels.append((share_V[kept].mean(), share_V.mean()))
    return np.array(seen, dtype=np.float64), np.array(pixels, dtype=np.float64)
