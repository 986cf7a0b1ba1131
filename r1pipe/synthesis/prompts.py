"""What a language model is told: the room as a list of objects, the question, and how to answer."""

from r1pipe.datasets import Sample
from r1pipe.response import identifier
from r1pipe.scenes import Scene, SceneObject
from r1pipe.scenes.graph import ahead
from r1pipe.synthesis.room import Room

_TASK = """\
You look at a 3D scan of a room. Its objects, with identifier, label, colour, centre (x, y, z) and size in metres, z up:
{objects}

{situation}Question: {question}

Reason step by step, one sentence a step and at least three steps. Name the objects that matter by their identifiers, and
name the object that the answer is about in the last step. Then answer in as few words as possible{kind}.
Write exactly: <think>your reasoning</think><answer>your answer</answer>"""

_SECOND = """\
Somebody reasoned about a question. Answer the question from the reasoning alone, in as few words as possible{kind}; write
nothing but the answer.

Question: {question}
Reasoning: {thinking}"""

_KINDS = {
    "grounding": ", with the identifiers of the objects that are meant, or none",
    "captioning": ", with one short sentence that describes the object",
}


def first_prompt(sample: Sample, scene: Scene) -> str:
    """Asks for reasoning and answer; the reference is not in it."""
    room = Room(scene)
    return _TASK.format(
        objects="\n".join(_line(thing, room) for thing in scene.objects),
        situation=_situation(sample),
        question=sample.question,
        kind=_KINDS.get(sample.task, ""),
    )


def second_prompt(sample: Sample, thinking: str) -> str:
    """Asks for the answer that follows from the reasoning; the room is not in it."""
    return _SECOND.format(kind=_KINDS.get(sample.task, ""), question=sample.question, thinking=thinking)


def _line(thing: SceneObject, room: Room) -> str:
    centre, size = (", ".join(f"{number:.2f}" for number in part) for part in (thing.box.centre, thing.box.size))
    return (
        f"{identifier(thing.id)} {thing.label}, {room.colour(thing) or 'no colour'}, centre ({centre}), size ({size})"
    )


def _situation(sample: Sample) -> str:
    lines = [f"Earlier turn: {turn}\n" for turn in sample.history]
    if sample.pose is not None:
        x, y, z = sample.pose.position
        east, north = ahead(sample.pose.rotation)
        lines.append(f"You stand at ({x:.2f}, {y:.2f}, {z:.2f}) and look along ({east:.2f}, {north:.2f}).\n")
    return "".join(lines)
