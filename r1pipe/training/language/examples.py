"""Rows for TRL: scenes by reference, questions and answers with detections for annotated objects."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from datasets import Dataset

from r1pipe.datasets import Sample
from r1pipe.datasets.sample import lot
from r1pipe.errors import DataError
from r1pipe.geometry import boxes_array
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1 import scene_reference
from r1pipe.models.r1.prompts import Request, messages
from r1pipe.params.run import Think
from r1pipe.response import rename
from r1pipe.rewards.total import reward_columns
from r1pipe.scenes import SceneObject


class Example(NamedTuple):
    """A sample as the model sees it."""

    sample: Sample
    request: Request
    completion: str
    """The chain of thought and the answer; identifiers are detections."""


def detections(objects: Sequence[SceneObject], features: SceneFeatures) -> dict[int, int]:
    """Annotation id to detection, for the annotated objects that the detector found."""
    matches = features.match(boxes_array([o.box for o in objects]))
    return {o.id: match for o, match in zip(objects, matches, strict=True) if match is not None}


def ground(
    samples: Iterable[Sample], thoughts: Mapping[str, str], names: Mapping[str, Mapping[int, int]]
) -> Iterator[Example]:
    """The samples whose objects were all detected, each with its chain of thought.

    Args:
        samples: questions with annotation ids.
        thoughts: the validated text of a sample, by its id; a sample without one was rejected and is left out.
        names: annotation id to detection, by scene.
    """
    for sample in samples:
        if sample.id not in thoughts:
            continue
        question = rename(sample.question, names[sample.scene_id])
        completion = rename(thoughts[sample.id], names[sample.scene_id])
        if question is not None and completion is not None:
            yield Example(sample, Request.of(sample)._replace(question=question), completion)


def some(examples: Sequence[Example], count: int) -> list[Example]:
    """At most `count` examples, chosen by a hash of their ids."""
    return sorted(examples, key=lambda example: lot(example.sample.id))[:count]


def sft_rows(examples: Sequence[Example], think: Think, *, instruct: bool) -> Dataset:
    """`prompt`, `completion`, `images`: what `SFTTrainer` reads; `instruct` as in `prompts.messages`."""
    return _dataset([_prompt(e, think, instruct) | {"completion": _turn(e.completion)} for e in examples])


def grpo_rows(
    examples: Sequence[Example], features: Mapping[str, SceneFeatures], think: Think, *, instruct: bool
) -> Dataset:
    """`prompt`, `images` and the columns that the rewards read; `instruct` as in `prompts.messages`."""
    boxes = {scene_id: found.boxes() for scene_id, found in features.items()}
    columns = (reward_columns(e.sample, boxes[e.sample.scene_id], think) for e in examples)
    return _dataset([_prompt(e, think, instruct) | row for e, row in zip(examples, columns, strict=True)])


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    if not rows:
        raise DataError(
            "Expected samples to train on, found none whose objects were all detected and whose text was kept."
        )
    return Dataset.from_list(rows)


def _prompt(example: Example, think: Think, instruct: bool) -> dict[str, Any]:
    request = example.request
    prompt = messages(request, think, instruct=instruct)
    return {"prompt": prompt, "images": [scene_reference(request.scene_id, request.question)]}


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def texts(rows: Dataset) -> Iterator[str]:
    """Every text of SFT rows: what a tokenizer is trained on."""
    for row in rows:
        yield from (f"{turn['role']} {turn['content']}" for turn in row["prompt"] + row["completion"])
