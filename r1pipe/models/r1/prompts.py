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


def user_text(request: Request, think: Think) -> str:
    """What the user's last turn says: task, whether to reason, pose, question."""
    mode = f"{request.task} think" if think.on(request.task) else request.task
    return f"{mode}: {_stance(request.pose)}{request.question}"


def _stance(pose: Pose | None) -> str:
    """Where the agent stands and looks, in decimetres, so that numbers stay short."""
    if pose is None:
        return ""
    (x, y, _), (forward_x, forward_y) = pose.position, ahead(pose.rotation)
    return f"at {x * 10:.0f} {y * 10:.0f} facing {forward_x * 10:.0f} {forward_y * 10:.0f}. "


def messages(request: Request, think: Think) -> list[dict[str, Any]]:
    """The conversation, the scene not yet in it: TRL and `with_scene` put it before the first turn."""
    turns = [*request.history, user_text(request, think)]
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def with_scene(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with the scene's placeholder at the head of its first turn."""
    first, *rest = conversation
    return [{**first, "content": [{"type": "image"}, {"type": "text", "text": first["content"]}]}, *rest]
