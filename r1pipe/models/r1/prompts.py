"""How a question is put to the model: the same words in training, evaluation and serving."""

from typing import Any, NamedTuple

from r1pipe.datasets import Pose, Sample
from r1pipe.params.run import Think
from r1pipe.params.section import Task
from r1pipe.scenes.graph import ahead


class Request(NamedTuple):
    """One question about one scene."""

    scene_id: str
    task: Task
    question: str
    """Objects are named by their detection, `<obj_007>`."""

    pose: Pose | None = None
    history: tuple[str, ...] = ()
    """Earlier turns, oldest first, the user's and the assistant's in turn."""

    @classmethod
    def of(cls, sample: Sample) -> "Request":
        """The question of a sample that names no object, or whose objects are already detections."""
        return cls(sample.scene_id, sample.task, sample.question, sample.pose, sample.history)


SYSTEM = (
    "A 3D room in metres, z up: objects <obj_000>, <obj_001> …, then views. "
    "Answer, point at objects by name or describe them. "
    "Reply <think>reasoning</think><answer>answer</answer> or the answer alone."
)
"""What an instruct model is told before the scene: the same for every task, so that a scene is read once for all."""

_INSTRUCTIONS: dict[Task, str] = {
    "qa": "Answer",
    "situated": "Answer from where I stand",
    "grounding": "Point at",
    "captioning": "Describe",
    "dialogue": "Reply",
    "planning": "Say what to do, step by step",
    "description": "Describe the room",
}


def user_text(request: Request, think: Think, *, instruct: bool) -> str:
    """What the user's last turn says: task, whether to reason, pose, question.

    Args:
        request: the question.
        think: which tasks reason first.
        instruct: in words, as a pretrained model reads them; else as short as a small vocabulary allows.
    """
    reasons = think.on(request.task)
    if instruct:
        mode = f"{_INSTRUCTIONS[request.task]}{'' if reasons else ', without reasoning'}"
        return f"{mode}: {_stance_in_words(request.pose)}{request.question}"
    mode = f"{request.task} think" if reasons else request.task
    return f"{mode}: {_stance(request.pose)}{request.question}"


def _stance(pose: Pose | None) -> str:
    """Where the agent stands and looks, in decimetres, so that numbers stay short."""
    if pose is None:
        return ""
    (x, y, _), (forward_x, forward_y) = pose.position, ahead(pose.rotation)
    return f"at {x * 10:.0f} {y * 10:.0f} facing {forward_x * 10:.0f} {forward_y * 10:.0f}. "


def _stance_in_words(pose: Pose | None) -> str:
    if pose is None:
        return ""
    (x, y, _), (forward_x, forward_y) = pose.position, ahead(pose.rotation)
    return f"I stand at x {x:.1f}, y {y:.1f} and look along x {forward_x:.1f}, y {forward_y:.1f}. "


def messages(request: Request, think: Think, *, instruct: bool) -> list[dict[str, Any]]:
    """The conversation, the scene not yet in it: TRL and `with_scene` put it before the user's first turn."""
    turns = [*request.history, user_text(request, think, instruct=instruct)]
    roles = ("user", "assistant")
    conversation = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
    return [{"role": "system", "content": SYSTEM}, *conversation] if instruct else conversation


def with_scene(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with the scene's placeholder at the head of the user's first turn."""
    first = next(i for i, turn in enumerate(conversation) if turn["role"] == "user")
    turn = conversation[first]
    content = [{"type": "image"}, {"type": "text", "text": turn["content"]}]
    return [*conversation[:first], {**turn, "content": content}, *conversation[first + 1 :]]
