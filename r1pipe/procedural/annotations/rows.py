"""Annotations as rows of the published files: ScanRefer, Nr3D, Multi3DRefer, ScanQA, SQA3D and 3D-LLM.

Numbers that are unique over a whole data set (Nr3D's assignment, SQA3D's question) are given where the files are written.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from r1pipe.datasets.sample import Pose
from r1pipe.datasets.sqa3d import published_pose
from r1pipe.errors import DataError
from r1pipe.params.section import Split
from r1pipe.procedural.annotations import conversations
from r1pipe.procedural.annotations.facts import Facts
from r1pipe.procedural.annotations.questions import Question, questions
from r1pipe.procedural.annotations.referring import Expression, among_many, any_number, captions
from r1pipe.procedural.annotations.situations import Situation, situations
from r1pipe.procedural.room import Rng
from r1pipe.procedural.scan import Scan
from r1pipe.scenes.scene import Scene

Row = dict[str, Any]

_SITUATED_PER_ROOM = 2


@dataclass(frozen=True)
class Annotations:
    """The rows of one room, by file."""

    scanrefer: list[Row]
    nr3d: list[Row]
    multi3drefer: list[Row]
    scanqa: list[Row]
    sqa3d_questions: list[Row]
    sqa3d_annotations: list[Row]
    embodied_dialogue: list[Row]
    embodied_planning: list[Row]
    embodied_question_answer: list[Row]
    scene_description: list[Row]


def annotate(scan: Scan, split: Split, rng: Rng) -> Annotations:
    """Everything that is asked and said about a room, true of the boxes and colours as scanned.

    Raises:
        DataError: if the room has no thing that is alone of its class, which leaves nothing to refer to.
    """
    scene = scan.scene()
    facts = Facts(scene)
    if not facts.unique:
        raise DataError(f"Expected a thing alone of its class in room {scene.id}, found none.")
    referring = captions(facts)
    said = {expression.text for expression in referring}
    several = [e for e in among_many(facts, rng) if e.text not in said]
    said |= {e.text for e in several}
    numbered = [e for e in any_number(facts, rng) if e.text not in said]
    situated = situations(facts, rng, _SITUATED_PER_ROOM + 1)
    plan = conversations.plan(facts, rng)
    return Annotations(
        scanrefer=[_scanrefer(scene, e, i) for i, e in enumerate(referring)],
        nr3d=[_nr3d(scene, e, facts) for e in several],
        multi3drefer=[_multi3drefer(scene, e, i, facts) for i, e in enumerate(numbered)],
        scanqa=[_scanqa(scene, split, q, i) for i, q in enumerate(questions(facts, rng))],
        sqa3d_questions=[_sqa3d_question(scene, s) for s in situated[:_SITUATED_PER_ROOM]],
        sqa3d_annotations=[_sqa3d_annotation(scan, s) for s in situated[:_SITUATED_PER_ROOM]],
        embodied_dialogue=[_threedllm(scene, turn) for turn in conversations.dialogue(facts, rng)],
        embodied_planning=[] if plan is None else [_threedllm(scene, plan)],
        embodied_question_answer=[_threedllm(scene, conversations.embodied(s)) for s in situated[_SITUATED_PER_ROOM:]],
        scene_description=[_threedllm(scene, conversations.description(facts))],
    )


def _tokens(text: str) -> list[str]:
    return text.replace(".", " .").replace(",", " ,").split()


def _scanrefer(scene: Scene, expression: Expression, number: int) -> Row:
    """ScanRefer writes ids as strings, and joins the words of a class by underscores."""
    return {
        "scene_id": scene.id,
        "object_id": str(expression.targets[0].id),
        "object_name": expression.label.replace(" ", "_"),
        "ann_id": str(number),
        "description": expression.text,
        "token": _tokens(expression.text),
    }


def _nr3d(scene: Scene, expression: Expression, facts: Facts) -> Row:
    """Nr3D's `stimulus_id`: scene, class, how many of it there are, the target, the others."""
    target = expression.targets[0]
    group = facts.by_label[expression.label]
    others = [str(o.id) for o in group if o.id != target.id]
    stimulus = [scene.id, expression.label.replace(" ", "_"), str(len(group)), str(target.id), *others]
    return {
        "stimulus_id": "-".join(stimulus),
        "utterance": expression.text,
        "correct_guess": True,
        "speaker_id": 0,
        "listener_id": 0,
        "scan_id": scene.id,
        "instance_type": expression.label,
        "target_id": target.id,
        "tokens": str(_tokens(expression.text)),
        "dataset": "nr3d",
        "mentions_target_class": True,
        "uses_object_lang": True,
        "uses_spatial_lang": expression.spatial,
        "uses_color_lang": expression.colour,
        "uses_shape_lang": False,
    }


def _multi3drefer(scene: Scene, expression: Expression, number: int, facts: Facts) -> Row:
    """Multi3DRefer's evaluation type: none (zt), one (st) or several (mt) targets, with (w_d) or without distractors."""
    others = [o for o in facts.by_label.get(expression.label, []) if o not in expression.targets]
    distracted = "w_d" if others else "wo_d"
    kind = "mt" if len(expression.targets) > 1 else f"{'st' if expression.targets else 'zt'}_{distracted}"
    return {
        "scene_id": scene.id,
        "object_ids": [o.id for o in expression.targets],
        "object_name": expression.label.replace(" ", "_"),
        "ann_id": number,
        "eval_type": kind,
        "description": expression.text,
        "spatial": expression.spatial,
        "color": expression.colour,
        "texture": False,
        "shape": False,
    }


def _scanqa(scene: Scene, split: Split, question: Question, number: int) -> Row:
    return {
        "answers": [question.answer],
        "object_ids": [o.id for o in question.objects],
        "object_names": [o.label for o in question.objects],
        "question": question.text,
        "question_id": f"{split}-{scene.id.split('_')[0]}-{number}",
        "scene_id": scene.id,
    }


def _sqa3d_question(scene: Scene, situation: Situation) -> Row:
    return {
        "scene_id": scene.id,
        "situation": situation.text,
        "alternative_situation": [],
        "question": situation.question,
    }


def _sqa3d_annotation(scan: Scan, situation: Situation) -> Row:
    """SQA3D's own frame: unaligned, from the middle of the mesh's bounds."""
    xyz_P3 = scan.xyz.astype(np.float64)
    centre = ((xyz_P3.min(axis=0) + xyz_P3.max(axis=0)) / 2).tolist()
    pose = Pose(position=situation.position, rotation=situation.rotation)
    position, rotation = published_pose(pose, scan.alignment, centre)
    return {
        "scene_id": scan.id,
        "question_type": "N/A",
        "answer_type": "other",
        "answers": [{"answer": situation.answer, "answer_confidence": "yes", "answer_id": 1}],
        "rotation": rotation,
        "position": position,
    }


def _threedllm(scene: Scene, turn: conversations.Turn) -> Row:
    return {"question": turn.question, "answers": [turn.answer], "scene_id": scene.id}
