"""3D-LLM's ScanNet part, as published with LL3DA: dialogue, planning, embodied questions, scene descriptions.

What is known of these files, and what happens to it here: a (scene, question) pair that comes again gives another
reference of the same sample, exact repeats give none; a comma at an answer's end (1,158 of 1,938 embodied answers) is
cut; two assistant turns in a row are one turn; the file named `val` holds scenes of ScanNet's train list, and a sample
takes its scene's split.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.rows import Row, json_rows
from r1pipe.datasets.sample import Sample
from r1pipe.errors import DataError
from r1pipe.params.section import Task

KINDS: dict[str, Task] = {
    "embodied_dialogue_filtered": "dialogue",
    "embodied_planning_filtered": "planning",
    "embodied_question_answer": "situated",
    "scene_description": "description",
}
"""The middle of each file's name, and its task; an embodied question says in words where the agent stands."""

_TURN = re.compile(r"###\s*(human|assistant)\s*:")


class Exchange(Row):
    """A row of `3d_llm_<kind>_<split>.json`."""

    scene_id: str
    question: str
    answers: tuple[str, ...] = Field(min_length=1)


class Prompt(NamedTuple):
    """A question with what was said before it, the human's and the assistant's turns alternating."""

    question: str
    history: tuple[str, ...]


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A sample for each scene and prompt of each file.

    Raises:
        DataError: if a row is malformed, does not end with the assistant's turn, or its scene is unknown.
    """
    for path in paths:
        samples: dict[tuple[str, Prompt], Sample] = {}
        for number, (where, row) in enumerate(json_rows([path], Exchange)):
            key = row.scene_id, parse_prompt(row.question, where)
            sample = samples.get(key) or _sample(*key, path, number, where, catalog)
            if sample is not None:
                samples[key] = _with_answers(sample, row.answers)
        yield from samples.values()


def parse_prompt(text: str, where: str) -> Prompt:
    """Read `### human: … ### assistant: … ### human: … ### assistant:`.

    Raises:
        DataError: if the turns do not begin with the human's and end with an empty one of the assistant's.
    """
    before, *parts = _TURN.split(text)
    turns: list[tuple[str, str]] = []
    for who, said in zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True):
        if turns and turns[-1][0] == who and said:
            turns[-1] = (who, f"{turns[-1][1]} {said}")
        else:
            turns.append((who, said))
    speakers = [who for who, _ in turns]
    if before.strip() or not turns or turns[-1][1] or speakers != ["human", "assistant"] * (len(turns) // 2):
        raise DataError(f"Expected '### human: … ### assistant:' as question in {where}, found {text[:80]!r}.")
    *history, question = (said for _, said in turns[:-1])
    return Prompt(question, tuple(history))


def _sample(scene_id: str, prompt: Prompt, path: Path, number: int, where: str, catalog: Catalog) -> Sample | None:
    room = catalog.room(scene_id, where)
    if room is None:
        return None
    kind = next((kind for kind in KINDS if kind in path.name), None)
    if kind is None:
        raise DataError(f"Expected one of {', '.join(KINDS)} in the file name {path.name}, found none.")
    return Sample(
        # The row's number is the file's own, and train and val files begin at 0 alike: the file's split tells them apart.
        id=f"3dllm-{KINDS[kind]}-{scene_id}-{path.stem.rpartition('_')[2]}{number}",
        scene_id=scene_id,
        task=KINDS[kind],
        question=prompt.question,
        history=prompt.history,
        tags=("embodied",) if KINDS[kind] == "situated" else (),
        source="3dllm",
        split=room.split,
    )


def _with_answers(sample: Sample, answers: Sequence[str]) -> Sample:
    """The sample with these references as well, each once."""
    cleaned = (answer.strip().rstrip(",").rstrip() for answer in answers)
    return sample.model_copy(update={"answers": tuple(dict.fromkeys((*sample.answers, *cleaned)))})
