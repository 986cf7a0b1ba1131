"""Every metric of a task under a protocol, ready to be summed up or resampled.

All numbers are on 0..100 (CIDEr is 100 times coco-caption's). Document frequencies of CIDEr come from the references that are
scored, as in coco-caption: a part of a file scores unlike the whole, and they stay fixed when samples are resampled.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.scanqa import question_type
from r1pipe.errors import DataError
from r1pipe.evaluation import rows
from r1pipe.evaluation.captioning import captioning
from r1pipe.evaluation.protocols import ScoreTask, protocol
from r1pipe.evaluation.rules import AnswerProtocol, BoxProtocol, CaptionProtocol, ObjectProtocol, Protocol
from r1pipe.metrics.answers import situated_type, unigram_f
from r1pipe.metrics.grounding import box_iou, f1, percent
from r1pipe.metrics.intervals import mean
from r1pipe.metrics.ngrams import Measures, mean_smoothed_bleu, ngrams

Rows = Iterable[Mapping[str, Any]]
NO_METEOR = "no METEOR jar: its scores need Java and a jar that is not part of this package, and another METEOR scores otherwise"
"""Why the pipeline's own reports have no METEOR, whatever is installed where they are made."""


def measure(
    task: ScoreTask,
    predictions: Rows,
    references: Rows,
    rules: Protocol | str | None = None,
    *,
    jar: Path | None = None,
    lemma: Callable[[str], str] | None = None,
) -> Measures:
    """Every metric of a task over its samples.

    Args:
        task: what is scored.
        predictions: as `rows` parses them.
        references: the same ids.
        rules: a protocol or its name, the task's default for None.
        jar: METEOR's; without it there is no METEOR.
        lemma: of a word, for ScanQA's F-value; without it there is none.

    Raises:
        DataError: if a row does not fit its format or the predictions do not cover the references' ids exactly.
    """
    if not isinstance(rules, AnswerProtocol | BoxProtocol | CaptionProtocol | ObjectProtocol):
        rules = protocol(task, rules)
    if isinstance(rules, CaptionProtocol):
        return captioning(predictions, references, rules, jar)
    if isinstance(rules, AnswerProtocol):
        return _answers(task, predictions, references, rules, jar, lemma)
    if isinstance(rules, ObjectProtocol):
        return _object_captions(predictions, references, rules, jar)
    return (_grounding if task == "grounding" else _multi_grounding)(predictions, references, rules)


def _answers(
    task: ScoreTask,
    predictions: Rows,
    references: Rows,
    rules: AnswerProtocol,
    jar: Path | None,
    lemma: Callable[[str], str] | None,
) -> Measures:
    wanted = rows.parse(references, rows.AnswerReference, "answer references")
    given = rows.in_order(rows.parse(predictions, rows.Answer, "answers"), wanted)
    measures: Measures = {}
    if rules.exact != "none":
        matches = [rules.compare(a.answer, b.answers) for a, b in zip(given, wanted, strict=True)]
        exact_N = np.array([item.exact for item in matches], dtype=np.float64)
        measures["em"] = mean(exact_N)
        measures["em_refined"] = mean(np.array([item.refined for item in matches], dtype=np.float64))
        measures |= _among_ten(given, wanted, rules)
        groups = _groups([_question_type(task, row) for row in wanted])
        measures |= {f"em_{name}": mean(exact_N, group_N) for name, group_N in groups.items()}
    if rules.unigram_f and lemma is not None:
        f_N = [unigram_f(a.answer, b.answers, lemma) for a, b in zip(given, wanted, strict=True)]
        measures["f_value"] = mean(np.array(f_N))
    texts = [[rules.reference(text) for text in row.answers] for row in wanted]
    return measures | ngrams([rules.prediction(row.answer) for row in given], texts, jar=jar)


def _among_ten(given: Sequence[rows.Answer], wanted: Sequence[rows.AnswerReference], rules: AnswerProtocol) -> Measures:
    """ScanQA's EM@10, where every prediction brings its ten answers."""
    if not given or not all(row.top10 for row in given):
        return {}
    hits = [any(rules.compare(text, b.answers).exact for text in a.top10) for a, b in zip(given, wanted, strict=True)]
    return {"em_10": mean(np.array(hits, dtype=np.float64))}


def _question_type(task: ScoreTask, row: rows.AnswerReference) -> list[str]:
    if row.question_type:
        return [row.question_type]
    if not row.question:
        return []
    return [situated_type(row.question) if task == "situated" else question_type(row.question)]


def _groups(names: Sequence[Sequence[str]]) -> dict[str, NDArray[np.bool_]]:
    """For each name, which samples bear it; names as they stand in a metric's name, sorted."""
    slugs = [{re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in some} for some in names]
    return {name: np.array([name in some for some in slugs]) for name in sorted(set().union(*slugs))}


def _grounding(predictions: Rows, references: Rows, rules: BoxProtocol) -> Measures:
    wanted = rows.parse(references, rows.BoxesReference, "box references")
    given = rows.in_order(rows.parse(predictions, rows.Boxes, "boxes"), wanted)
    for row in wanted:
        if len(row.boxes) != 1:
            raise DataError(f"Expected one box a reference in grounding, found {len(row.boxes)} in {row.id}.")
    pairs = list(zip(given, wanted, strict=True))
    iou_N = np.array([box_iou(a.boxes, b.boxes[0], epsilon=rules.epsilon) for a, b in pairs])
    groups = [[*_uniqueness(b.unique if b.unique is not None else a.unique), *b.tags] for a, b in pairs]
    return _grouped({f"acc_{percent(k)}": (iou_N >= k).astype(np.float64) for k in rules.thresholds}, groups)


def _uniqueness(unique: bool | None) -> list[str]:
    return [] if unique is None else ["unique" if unique else "multiple"]


def _multi_grounding(predictions: Rows, references: Rows, rules: BoxProtocol) -> Measures:
    wanted = rows.parse(references, rows.BoxesReference, "box references")
    given = rows.in_order(rows.parse(predictions, rows.Boxes, "boxes"), wanted)
    pairs = list(zip(given, wanted, strict=True))
    scores = {
        f"f1_{percent(k)}": np.array([f1(a.boxes, b.boxes, k, epsilon=rules.epsilon) for a, b in pairs])
        for k in rules.thresholds
    }
    return _grouped(scores, [[_query_type(row), *row.tags] for row in wanted])


def _grouped(scores: Mapping[str, NDArray[np.float64]], names: Sequence[Sequence[str]]) -> Measures:
    """The mean of each score over all samples, and over each group."""
    whole = {name: mean(score_N) for name, score_N in scores.items()}
    parts = {
        f"{group}_{name}": mean(score_N, group_N)
        for group, group_N in _groups(names).items()
        for name, score_N in scores.items()
    }
    return whole | parts


def _query_type(row: rows.BoxesReference) -> str:
    """Multi3DRefer's type: zero, single or multiple targets, the former two with or without distractors where that is known."""
    if row.eval_type is not None:
        return row.eval_type
    if len(row.boxes) > 1:
        return "mt"
    targets = "st" if row.boxes else "zt"
    return targets if row.unique is None else f"{targets}_{'wo_d' if row.unique else 'w_d'}"


def _object_captions(predictions: Rows, references: Rows, rules: ObjectProtocol, jar: Path | None) -> Measures:
    wanted = rows.parse(references, rows.ObjectReference, "object references")
    given = rows.in_order(rows.parse(predictions, rows.ObjectCaption, "object captions"), wanted)
    if not all(row.captions for row in wanted):
        return {}
    texts = [[rules.reference(text) for text in row.captions] for row in wanted]
    said = [rules.prediction(row.caption or rules.empty) for row in given]
    return mean_smoothed_bleu(said, texts) if rules.bleu == "smoothed" else ngrams(said, texts, jar=jar)


def reward_means(rows: Sequence[Mapping[str, Any]]) -> Measures:
    """The mean of each reward and of their total, times 100, over the questions to which it applies."""
    names = [name for name in rows[0] if name != "id"]
    values_N = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}
    return {name: mean(np.nan_to_num(value_N), ~np.isnan(value_N)) for name, value_N in values_N.items()}
