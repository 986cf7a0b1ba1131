"""What `r1pipe score` and `r1pipe compare` do with files: read, doubt, score, and say by which rules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from r1pipe.errors import DataError, MissingError
from r1pipe.evaluation import rows
from r1pipe.evaluation.captioning import gaps_in
from r1pipe.evaluation.plausibility import (
    MAX_PAIRS,
    Pair,
    refuse_improper,
    refuse_misread,
    refuse_oversized,
    scene_of,
)
from r1pipe.evaluation.prior import prior_answers
from r1pipe.evaluation.protocols import ScoreTask, protocol
from r1pipe.evaluation.rules import AnswerProtocol, Protocol
from r1pipe.evaluation.scoring import measure
from r1pipe.evaluation.submissions import Row, Submission, by_object, pair, read_submission
from r1pipe.files import write_json
from r1pipe.metrics.intervals import differences, intervals
from r1pipe.metrics.meteor import find_jar
from r1pipe.metrics.ngrams import Measures
from r1pipe.metrics.wordnet import find_lemma

Kind = TypeVar("Kind")
Values = dict[str, Any]


class Scoring(NamedTuple):
    """How a file is scored."""

    protocol: str | None = None
    """Its name, the task's default for None."""
    options: Mapping[str, str] = {}
    """Of the protocol, set otherwise."""
    meteor: bool = True
    """Whether METEOR is wanted where its jar is."""
    resamples: int = 0
    """Bootstrap resamples behind an interval a metric; no intervals for 0."""
    seed: int = 0
    """Of the bootstrap."""
    clip: str | None = None
    """A CLIP in open_clip's format or by its name, for object captioning."""
    sentence_model: str | None = None
    """A sentence encoder of transformers, for object captioning."""


OFFICIAL = Scoring()
"""The benchmark's own rules."""


def score(
    task: ScoreTask, predictions: Submission, references: Submission, how: Scoring = OFFICIAL, folder: Path = Path()
) -> Values:
    """Every metric of a task, with `num_samples`, protocol, recognised formats, warnings, and the reason of what is null.

    Args:
        task: what is scored.
        predictions: rows of a file.
        references: rows of a file.
        how: by which rules.
        folder: what the paths of images in the references start from.

    Raises:
        DataError: if a row does not fit, ids are missing, surplus or repeated, or boxes are improper or misread.
    """
    rules = protocol(task, how.protocol, how.options)
    predictions, references = _texts(task, *pair(predictions, references))
    warnings = [*references.notes, *_empty(task, predictions.rows)]
    warnings += _doubt_boxes(task, predictions.rows, references.rows)
    measures, absent = _measures(task, predictions, references, rules, how)
    if task == "object-captioning":
        more, lacking = _with_models(predictions.rows, references.rows, rules, how, folder)
        measures, absent = measures | more, absent | lacking
    values: Values = {name: item.value for name, item in measures.items()} | absent
    if how.resamples and measures:
        values["intervals"] = {
            name: {"low": item.low, "high": item.high, "n": item.n}
            for name, item in intervals(measures, resamples=how.resamples, seed=how.seed).items()
        }
    values["num_samples"] = max((item.num_samples for item in measures.values()), default=len(references.rows))
    values["protocol"] = rules.name
    values |= {name: model for name, model in (("clip", how.clip), ("sentence_model", how.sentence_model)) if model}
    values["recognised"] = {"predictions": predictions.recognised, "references": references.recognised}
    values["warnings"] = warnings
    return values


def run_score(
    task: ScoreTask, predictions: Path, references: Path, json_out: Path | None, how: Scoring = OFFICIAL
) -> Values:
    """`r1pipe score`: score a file, and write the result where `json_out` says."""
    values = score(task, read_submission(predictions), read_submission(references), how, references.parent)
    return _written(values, json_out)


def run_baseline(
    task: ScoreTask, learnt_from: Path, references: Path, json_out: Path | None, how: Scoring = OFFICIAL
) -> Values:
    """`r1pipe score --baseline prior`: what answers without any scene are worth, learnt on one file and scored on another."""
    wanted = read_submission(references)
    values = score(task, prior_answers(read_submission(learnt_from), wanted), wanted, how, references.parent)
    return _written(values, json_out)


def _written(values: Values, json_out: Path | None) -> Values:
    if json_out is not None:
        write_json(json_out, values)
    return values


def run_compare(
    task: ScoreTask, first: Path, second: Path, references: Path, *, resamples: int, seed: int
) -> dict[str, dict[str, float | int]]:
    """`r1pipe compare`: two prediction files over the same references, with a paired 95 % interval of second minus first."""
    ours, theirs = (_compared(task, path, references) for path in (first, second))
    gaps = differences(ours, theirs, resamples=resamples, seed=seed)
    return {
        name: {
            "first": ours[name].value,
            "second": theirs[name].value,
            "difference": gap.value,
            "low": gap.low,
            "high": gap.high,
            "n": gap.n,
        }
        for name, gap in gaps.items()
    }


def _compared(task: ScoreTask, path: Path, references: Path) -> Measures:
    given, wanted = _texts(task, *pair(read_submission(path), read_submission(references)))
    _doubt_boxes(task, given.rows, wanted.rows)
    return measure(task, given.rows, wanted.rows)


def _measures(
    task: ScoreTask, predictions: Submission, references: Submission, rules: Protocol, how: Scoring
) -> tuple[Measures, Values]:
    """The metrics, and null with the reason for what this machine lacks."""
    jar, no_meteor = _find(find_jar) if how.meteor else (None, "METEOR was not asked for")
    wants_lemmas = isinstance(rules, AnswerProtocol) and rules.unigram_f
    lemma, no_lemma = _find(find_lemma) if wants_lemmas else (None, "")
    measures = measure(task, predictions.rows, references.rows, rules, jar=jar, lemma=lemma)
    twins = [name.replace("cider", "meteor") for name in measures if name.startswith("cider")]
    lacking = [name for name in twins if name not in measures]
    absent: Values = dict.fromkeys(lacking) | ({"meteor_reason": no_meteor} if lacking else {})
    return measures, absent | ({"f_value": None, "f_value_reason": no_lemma} if no_lemma else {})


def _find(find: Callable[[], Kind]) -> tuple[Kind | None, str]:
    """What is looked for, and why it is not there."""
    try:
        return find(), ""
    except MissingError as error:
        return None, str(error)


def _with_models(
    given: Sequence[Row], wanted: Sequence[Row], rules: Any, how: Scoring, folder: Path
) -> tuple[Measures, Values]:
    """What needs a model beside the n-grams of object captions; null with the reason where nobody asked or nothing is to be compared."""
    measures: Measures = {}
    absent: Values = {}
    pictured = any(row.get("images") for row in wanted)
    if how.clip is None or not pictured:
        reason = "needs `images` in the references" if not pictured else "needs a CLIP (--clip)"
        absent |= {"clip_score": None, **{f"r_at_{k}": None for k in rules.ranks}, "clip_reason": reason}
    else:
        from r1pipe.evaluation.objects import clip_measures  # torch, for this task alone

        measures |= clip_measures(given, wanted, rules, how.clip, folder)
    written = all(row.get("captions") or row.get("answers") for row in wanted)
    if how.sentence_model is None or not written:
        reason = "needs `captions` in the references" if not written else "needs a sentence encoder (--sentence-model)"
        absent |= {"sentence_similarity": None, "sentence_similarity_reason": reason}
    else:
        from r1pipe.evaluation.objects import sentence_measures

        measures |= sentence_measures(given, wanted, rules, how.sentence_model)
    return measures, absent


def _texts(task: ScoreTask, predictions: Submission, references: Submission) -> tuple[Submission, Submission]:
    """Official rows as the task reads them: descriptions by object, and `corpus` and `pred` JSON as answers."""
    if task == "captioning":
        return predictions, by_object(references)
    if task not in ("qa", "situated", "dialogue", "planning"):
        return predictions, references
    several = [row["id"] for row in predictions.rows if len(row.get("texts", ("",))) != 1]
    if several:
        raise DataError(f"Expected one answer a key, found {len(several)} with another number{rows.such_as(several)}.")
    given = [{"answer": row["texts"][0], **row} if "texts" in row else row for row in predictions.rows]
    wanted = [{"answers": row["texts"], **row} if "texts" in row else row for row in references.rows]
    return predictions._replace(rows=given), references._replace(rows=wanted)


def _empty(task: ScoreTask, given: Sequence[Row]) -> list[str]:
    """A warning with the number of empty predictions, and of which ids."""
    field = {"grounding": "boxes", "multi-grounding": "boxes", "captioning": "caption"}.get(task, "answer")
    if task == "multi-grounding":
        return []  # no box is an answer there
    empty = [str(row.get("id", row.get("scene_id"))) for row in given if not _said(row, field)]
    return [f"{len(empty)} of {len(given)} predictions are empty{rows.such_as(empty)}"] if empty else []


def _said(row: Row, field: str) -> bool:
    value = row.get(field, row.get("caption", row.get("texts")))
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def _doubt_boxes(task: ScoreTask, given: Sequence[Row], wanted: Sequence[Row]) -> list[str]:
    """Refuse improper boxes, and files that another unit or frame explains; warn where nothing is hit."""
    if task in ("grounding", "multi-grounding"):
        ours = rows.parse(given, rows.Boxes, "boxes")
        theirs = rows.parse(wanted, rows.BoxesReference, "box references")
        files = {
            "predictions": [(row.id, list(row.boxes)) for row in ours],
            "references": [(row.id, list(row.boxes)) for row in theirs],
        }
        return _doubt(files, _box_pairs(ours, theirs))
    if task == "captioning" and wanted and "texts" not in wanted[0]:
        said = rows.parse(given, rows.Caption, "captions")
        objects = rows.parse(wanted, rows.CaptionReference, "caption references")
        files = {
            "predictions": [(row.scene_id, [row.box]) for row in said],
            "references": [(row.scene_id, [row.box]) for row in objects],
        }
        return [*gaps_in(said, objects), *_doubt(files, _caption_pairs(said, objects))]
    return []


def _doubt(files: Mapping[str, Sequence[tuple[str, list[Any]]]], pairs: Iterator[Pair]) -> list[str]:
    """Refuse boxes that are none, then a file that another reading explains, then rows in another unit than the rest."""
    boxes = {
        what: [(f"row {n}, {name}", box) for n, (name, some) in enumerate(file, 1) for box in some]
        for what, file in files.items()
    }
    for what, some in boxes.items():
        refuse_improper(some, what)
    warnings = refuse_misread(list(islice(pairs, MAX_PAIRS)))
    for what, some in boxes.items():
        refuse_oversized(some, what)
    return warnings


def _box_pairs(ours: Sequence[rows.Boxes], theirs: Sequence[rows.BoxesReference]) -> Iterator[Pair]:
    """Queries with one target beside the first box predicted for them."""
    found = {row.id: row for row in ours}
    for row in theirs:
        if len(row.boxes) == 1 and row.id in found and found[row.id].boxes:
            yield Pair(row.scene_id or scene_of(row.id), row.id, found[row.id].boxes[0], row.boxes[0])


def _caption_pairs(ours: Sequence[rows.Caption], theirs: Sequence[rows.CaptionReference]) -> Iterator[Pair]:
    """Objects beside the box of the row that names them, or beside every nameless box of their scene."""
    named = {(row.scene_id, row.object_id): row for row in ours}
    nameless: dict[str, list[rows.Caption]] = {}
    for caption in ours:
        if caption.object_id is None:
            nameless.setdefault(caption.scene_id, []).append(caption)
    for row in theirs:
        own = named.get((row.scene_id, row.object_id))
        for caption in [own] if own else nameless.get(row.scene_id, []):
            yield Pair(row.scene_id, f"{row.scene_id}|{row.object_id}", caption.box, row.box)
