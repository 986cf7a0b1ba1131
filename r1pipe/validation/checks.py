"""What must hold of the data, in plain terms: a column, what its values must be, and how bad it is if they are not."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from r1pipe.params.chains import Validate
from r1pipe.params.section import Split, Task
from r1pipe.validation.evidence import KEPT

Severity = Literal["critical", "warning"]

SLACK_M = 0.1
"""A box may stick out of its scene's thinned cloud by this."""


class Check(NamedTuple):
    """One expectation about one column; a value that is missing (no box, no reasoning) is not judged."""

    name: str
    table: str
    column: str
    meaning: str
    """One sentence, shown in the report."""

    severity: Severity = "critical"
    low: float | None = None
    high: float | None = None
    values: tuple[object, ...] | None = None
    pattern: str | None = None
    unique: bool = False
    mostly: float = 1.0
    """The share of rows for which it must hold."""

    beside: str | None = None
    """The column that says more about a row for which it does not hold."""


class Rows(NamedTuple):
    """The least number of rows that a table must have."""

    name: str
    table: str
    meaning: str
    minimum: int = 1
    severity: Severity = "critical"


class Drift(NamedTuple):
    """How far a column's distribution may be from a stored one."""

    name: str
    table: str
    column: str
    meaning: str
    partition: Mapping[str, Any]
    """`values` or `bins`, and their `weights`, as Great Expectations has it."""

    threshold: float
    """Kullback-Leibler divergence of what is found from what is stored, nats."""

    severity: Severity = "warning"


Expectation = Check | Rows | Drift


def checks(section: Validate, tasks: tuple[Task, ...], splits: tuple[Split, ...]) -> tuple[Expectation, ...]:
    """Every expectation that does not depend on a stored profile, by table."""
    return (
        *_manifest(splits),
        *_annotations(),
        *_objects(),
        *_samples(section, tasks),
        *_texts(section),
        *_filters(),
    )


def _manifest(splits: tuple[Split, ...]) -> tuple[Expectation, ...]:
    return (
        Rows("some_files", "manifest", "The manifest names files."),
        Check("file_once", "manifest", "id", "No file is listed twice.", unique=True),
        Check("file_hashed", "manifest", "sha256", "Every file has its SHA-256.", pattern=r"^[0-9a-f]{64}$"),
        Check("file_not_empty", "manifest", "size", "No file is empty.", low=1),
        Rows("some_scenes", "scenes", "There are scenes."),
        Check("scene_once", "scenes", "id", "No scene is listed twice.", unique=True),
        Check("scene_split", "scenes", "split", "Every scene is in a known split.", values=splits),
        Check("scene_prepared", "scenes", "prepared", "Every scene of the manifest is prepared.", values=(True,)),
        Check(
            "room_in_one_split",
            "scenes",
            "room_splits",
            "All scans of a physical room, re-scans too, are in one split.",
            high=1,
            beside="room_scans",
        ),
        Check(
            "mesh_in_one_split",
            "scenes",
            "mesh_splits",
            "No two splits have the very same mesh under different ids.",
            high=1,
            beside="mesh_scans",
        ),
        Check(
            "layout_in_one_split",
            "scenes",
            "layout_splits",
            "No two splits have a room with the very same objects under different ids.",
            high=1,
            beside="layout_scans",
        ),
        Check("scene_in_metres", "scenes", "span", "A room spans 1 to 60 metres: not millimetres.", low=1, high=60),
    )


def _annotations() -> tuple[Expectation, ...]:
    """Defects of published files; the readers mend each in the way that its sentence says."""
    sentences = {
        "repeated": "No annotation stands twice in its file; of 3D-LLM one is kept.",
        "asked_before": "No file asks one scene the same thing twice; of 3D-LLM all answers go to one sample.",
        "trailing_comma": "No answer ends in a comma; of 3D-LLM it is cut.",
        "other_split": "A file named after a split has that split's scenes; a sample takes its scene's split.",
    }
    return tuple(
        Check(f"annotation_{column}", "annotations", column, meaning, "warning", values=(False,))
        for column, meaning in sentences.items()
    )


def _objects() -> tuple[Expectation, ...]:
    return (
        Rows("some_objects", "objects", "There are annotated objects."),
        Check("object_once", "objects", "id", "No object is listed twice.", unique=True),
        Check("object_labelled", "objects", "label", "Every object has a label.", pattern=r"\S"),
        Check("nyu40", "objects", "nyu40", "NYU40 classes are 0 (none) to 40.", low=0, high=40),
        Check("label_classed", "objects", "nyu40", "Most labels have an NYU40 class.", "warning", low=1, mostly=0.9),
        Check(
            "label_in_training",
            "objects",
            "in_training",
            "Labels of val and test occur in training.",
            "warning",
            values=(True,),
            mostly=0.95,
        ),
        *_boxes("objects"),
    )


def _boxes(table: str) -> tuple[Check, ...]:
    prefix = "box" if table == "objects" else "target_box"
    return (
        Check(
            f"{prefix}_in_metres",
            table,
            "longest",
            "The longest side of a box is 0.01 to 20 metres: not millimetres.",
            low=0.01,
            high=20,
        ),
        Check(f"{prefix}_not_flat", table, "shortest", "No side of a box is below 0.01 m.", "warning", low=0.01),
        Check(f"{prefix}_inside_scene", table, "sticks_out", "A box is inside its scene, up to 0.1 m.", high=SLACK_M),
    )


def _samples(section: Validate, tasks: tuple[Task, ...]) -> tuple[Expectation, ...]:
    share = 1 - section.max_reject_rate
    return (
        Rows("some_samples", "samples", "There are samples."),
        Check("duplicate_id", "samples", "id", "No two samples have one id.", unique=True),
        Check("task", "samples", "task", "Every task is known.", values=tasks),
        Check("question", "samples", "question", "Every sample asks something.", pattern=r"\S"),
        Check(
            "sample_split",
            "samples",
            "split_of_scene",
            "A sample's scene is in the manifest, in the sample's split.",
            values=(True,),
            beside="place",
        ),
        Check("has_reference", "samples", "has_reference", "There is a right answer.", "warning", values=(True,)),
        Check(
            "target_in_prompt",
            "samples",
            "gives_away",
            "No prompt holds a box or its numbers, and no grounding prompt an identifier.",
            values=(False,),
            beside="question",
        ),
        Check(
            "question_in_training",
            "samples",
            "leak",
            "Training has no val or test question about the same room, not nearly so either (word overlap below 0.8).",
            high=0.8,
            beside="leaks_to",
        ),
        Check("asked_once", "samples", "asked_before", "No question is asked twice.", "warning", values=(False,)),
        Check(
            "target_is_annotated",
            "samples",
            "box_error",
            "A target box is its object's box, up to 0.01 m, so in the same frame and unit.",
            high=0.01,
        ),
        Check("rotation", "samples", "rotation", "A pose's quaternion has length 1.", low=0.99, high=1.01),
        *_boxes("samples"),
        Check(
            "sample_drafted",
            "samples",
            "has_draft",
            "Enough training and validation samples got a draft from the teacher.",
            "warning",
            values=(True,),
            mostly=share,
        ),
    )


def _texts(section: Validate) -> tuple[Expectation, ...]:
    filters = section.filters
    return (
        Rows("some_drafts", "drafts", "There are drafts."),
        Check("draft_once", "drafts", "id", "No sample has two drafts.", unique=True),
        Check("draft_split", "drafts", "split", "Drafts are for train and val only.", values=("train", "val")),
        Check("draft_of_sample", "drafts", "of_sample", "A draft is of a sample as it is now.", values=(True,)),
        Check(
            "reject_rate",
            "drafts",
            "reason",
            "The filters keep enough drafts.",
            "warning",
            values=(KEPT,),
            mostly=1 - section.max_reject_rate,
        ),
        Rows("some_texts", "cot", "Some texts passed the filters."),
        Check("text_parses", "cot", "parses", "Every kept text follows its task's grammar.", values=(True,)),
        Check(
            "think_words",
            "cot",
            "think_words",
            "Every kept reasoning is as long as the filters ask.",
            low=filters.min_think_words,
            high=filters.max_think_words,
        ),
        Check("steps", "cot", "num_steps", "Every kept reasoning has enough steps.", low=filters.min_steps),
        Check("known_objects", "cot", "known_objects", "A text names objects of its scene only.", values=(True,)),
        Check(
            "right_answer",
            "cot",
            "answer_similarity",
            "A kept text answers as a reference does.",
            low=filters.consistency,
        ),
    )


def _filters() -> tuple[Expectation, ...]:
    """What is asked of the filters, where they were measured."""
    return (
        Check(
            "filter_recall",
            "filters",
            "recall",
            "A filter finds 95 % of each fault that it is there for.",
            "warning",
            low=0.95,
        ),
        Check(
            "filter_precision",
            "filters",
            "precision",
            "95 % of what a filter rejects has a fault that it is there for.",
            "warning",
            low=0.95,
        ),
        Check("fault_kept", "drafts", "fault_kept", "No text with a known fault is kept.", "warning", values=(False,)),
    )
