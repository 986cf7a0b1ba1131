"""A teacher that reads the answer off the scene graph: the embedded default, without a network or a bill."""

from collections.abc import Callable, Iterable, Mapping

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import reference
from r1pipe.response import compose, parse
from r1pipe.scenes import Scene
from r1pipe.synthesis import faults
from r1pipe.synthesis.patterns import SO, agrees, conclude, reason
from r1pipe.synthesis.room import Room
from r1pipe.synthesis.teacher import Refusal, SceneOf, Thought


class ScriptedTeacher:
    """Writes short, true look-ups, and commits known faults at known rates."""

    name = "scripted"
    status = ""

    def __init__(self, *, seed: int, fault_rates: Mapping[str, float]) -> None:
        self._seed = seed
        self._fault_rates = dict(fault_rates)
        self._room: Room | None = None

    async def prepare(self, samples: Callable[[], Iterable[Sample]], scene: SceneOf) -> None:
        """Nothing to do ahead."""

    async def think(self, sample: Sample, scene: Scene) -> Thought | Refusal:
        """Reason from the question's words and the room; the second pass reads the conclusion off the reasoning."""
        answer = reference(sample)
        if answer is None:
            return Refusal("empty", "the sample has no reference to reason towards")
        room = self._room_of(scene)
        found = reason(sample, room, answer)
        if found.conclusion is not None and not agrees(found.conclusion, sample):
            return Refusal("contradiction", f"the room says {found.conclusion!r}, the annotation {answer!r}")
        thinking = _with_answer(found.words, answer)
        rng = faults.generator(self._seed, sample.id)
        fault = faults.draw(self._fault_rates, rng)
        faulty = faults.FAULTS[fault](sample, room, thinking, answer, rng) if fault is not None else None
        text = compose(thinking, answer) if faulty is None else faulty
        return Thought(text, _second(text), fault if faulty is not None else None)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _room_of(self, scene: Scene) -> Room:
        """The look-ups of a scene, kept while its samples come in a row."""
        if self._room is None or self._room.scene is not scene:
            self._room = Room(scene)
        return self._room


def _with_answer(words: str, answer: str) -> str:
    """Look-ups that end with the answer need no conclusion."""
    ends = not words.endswith(f" {SO}") and conclude(words) == answer
    return words if ends else f"{words} {answer}"


def _second(text: str) -> str | None:
    response = parse(text, think=True)
    return None if response is None else conclude(response.thinking)
