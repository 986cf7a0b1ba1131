"""Dense captioning: which sentence stands for each annotated object, and what it is worth (m@kIoU)."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r1pipe.errors import DataError
from r1pipe.evaluation import rows
from r1pipe.evaluation.rules import CaptionProtocol
from r1pipe.metrics.dense import EMPTY, SILENCE, Caption, Spoken, assign, candidates, matched
from r1pipe.metrics.grounding import percent
from r1pipe.metrics.intervals import mean
from r1pipe.metrics.ngrams import Measures, ngrams, sentence_scores

Rows = Iterable[Mapping[str, Any]]


def captioning(predictions: Rows, references: Rows, rules: CaptionProtocol, jar: Path | None) -> Measures:
    """CIDEr, BLEU, ROUGE-L and METEOR at each IoU, over the reference objects.

    Files of texts alone (`corpus` and `pred` JSON) have no boxes any more: they are scored as they stand, without an IoU
    in the metrics' names.

    Raises:
        DataError: as `scoring.measure`.
    """
    predictions, references = list(predictions), list(references)
    if references and "texts" in references[0]:
        return _sentences(predictions, references, rules, jar)
    wanted = rows.parse(references, rows.CaptionReference, "caption references")
    given = rows.parse(predictions, rows.Caption, "captions")
    spoken = _spoken(given, wanted, rules)
    if rules.silence == "left-out":
        heard = [i for i, some in enumerate(spoken) if some]
        wanted, spoken = [wanted[i] for i in heard], [spoken[i] for i in heard]
    if not wanted:
        raise DataError("Expected a predicted box that overlaps an annotated object, found none.")
    texts = [[rules.reference(text) for text in row.captions] for row in wanted]
    if rules.score == "f1":
        return _f1(spoken, texts, len(given), rules, jar)
    measures: Measures = {}
    for k in rules.thresholds:
        said = [_sentence(_loudest(some, k, rules), rules) for some in spoken]
        measures |= ngrams(said, texts, f"_{percent(k)}", jar=jar)
    return measures


def _f1(
    spoken: Sequence[Sequence[Spoken]],
    texts: Sequence[Sequence[str]],
    num_given: int,
    rules: CaptionProtocol,
    jar: Path | None,
) -> Measures:
    """Scan2Cap's benchmark: scores of sentences at IoU k, over the predictions, over the objects, and their harmonic mean.

    Precision and recall are one sum over two counts, so F1 is twice that sum over both counts together. The benchmark's dense
    captioning mAP is not given: it needs nltk's METEOR, and its outcome depends on the order of the rows.
    """
    heard = [some[0] if some else SILENCE for some in spoken]
    scores = sentence_scores([_sentence(item, rules) for item in heard], texts, jar=jar)
    share = len(texts) / max(num_given, 1)  # where nothing is predicted, nothing counts
    measures: Measures = {}
    for k in rules.thresholds:
        hit_N = np.array([_loudest([item], k, rules) is not SILENCE for item in heard])
        for name, score_N in scores.items():
            counted_N = score_N * hit_N
            measures[f"{name}_{percent(k)}"] = mean(counted_N * 2 * share / (share + 1))
            measures[f"{name}_precision_{percent(k)}"] = mean(counted_N * share)
            measures[f"{name}_recall_{percent(k)}"] = mean(counted_N)
    return measures


def _loudest(spoken: Sequence[Spoken], k: float, rules: CaptionProtocol) -> Spoken:
    """The caption that counts for an object at threshold k."""
    counts: Callable[[float], bool] = k.__le__ if rules.inclusive else k.__lt__
    heard = [item for item in spoken if counts(item.iou)]
    if not heard:
        return SILENCE
    return heard[-1] if rules.several == "last" else max(heard, key=lambda item: item.iou)


def _sentence(spoken: Spoken, rules: CaptionProtocol) -> str:
    if spoken is SILENCE:
        return EMPTY if rules.prediction.wrap else ""
    return rules.prediction(spoken.text)


def _spoken(
    given: Sequence[rows.Caption], wanted: Sequence[rows.CaptionReference], rules: CaptionProtocol
) -> list[list[Spoken]]:
    """The captions that speak for each reference object: the row that names it, else those of the scene as the rules say.

    A row that names an object speaks for it wherever its box is; a nameless one must overlap it.
    """
    rows.check_once([(row.scene_id, row.object_id) for row in wanted], "references")
    named = {(row.scene_id, row.object_id): row for row in given if row.object_id is not None}
    _check_captions(given, wanted)
    nameless: dict[str, list[Caption]] = {}
    for row in given:
        if row.object_id is None:
            nameless.setdefault(row.scene_id, []).append(Caption(row.box, row.caption))
    spoken: list[list[Spoken]] = [[] for _ in wanted]
    for scene in {row.scene_id for row in wanted}:
        here = [i for i, row in enumerate(wanted) if row.scene_id == scene]
        boxes = [wanted[i].box for i in here]
        for i, some in zip(here, _speakers(nameless.get(scene, []), boxes, rules), strict=True):
            spoken[i] = some
    for i, reference in enumerate(wanted):
        own = named.get((reference.scene_id, reference.object_id))
        if own is not None:
            spoken[i] = assign([Caption(own.box, own.caption)], [reference.box], epsilon=rules.epsilon)
    return spoken


def _speakers(captions: Sequence[Caption], boxes: Sequence[Any], rules: CaptionProtocol) -> list[list[Spoken]]:
    if rules.speaker == "matched":
        pairs = matched(captions, boxes, counts_overlap=rules.giou_overlap, epsilon=rules.epsilon)
        first = captions[:1] if rules.unmatched == "first" else []
        return [some or assign(first, [box], epsilon=rules.epsilon) for some, box in zip(pairs, boxes, strict=True)]
    if rules.speaker == "object":
        spoken = [[item] for item in assign(captions, boxes, epsilon=rules.epsilon)]
    else:
        spoken = candidates(captions, boxes, by_centre=rules.speaker == "centre", epsilon=rules.epsilon)
    return [[item for item in some if item.iou > 0] for some in spoken]


def _check_captions(given: Sequence[rows.Caption], wanted: Sequence[rows.CaptionReference]) -> None:
    """Refuse captions of objects or scenes that the references do not have, and two captions of one object."""
    scenes = {row.scene_id for row in wanted}
    objects = {(row.scene_id, row.object_id) for row in wanted}
    surplus = [
        f"{row.scene_id}, object {row.object_id}, in row {number}"
        for number, row in enumerate(given, 1)
        if row.scene_id not in scenes or (row.object_id is not None and (row.scene_id, row.object_id) not in objects)
    ]
    if surplus:
        raise DataError(
            f"Expected captions of the {len(objects)} reference objects and their {len(scenes)} scenes, "
            f"found {len(surplus)} surplus{rows.such_as(surplus)}."
        )
    names = [f"{row.scene_id}, object {row.object_id}" for row in given if row.object_id is not None]
    if names:
        rows.check_once(names, "captions")


def gaps_in(given: Sequence[rows.Caption], wanted: Sequence[rows.CaptionReference]) -> list[str]:
    """Warnings, with counts: objects that no row can speak for, which are scored as silence, and rows that repeat a box."""
    named = {(row.scene_id, row.object_id) for row in given}
    heard = {row.scene_id for row in given if row.object_id is None}
    unheard = [
        f"{row.scene_id}, object {row.object_id}"
        for row in wanted
        if row.scene_id not in heard and (row.scene_id, row.object_id) not in named
    ]
    places = [f"{row.scene_id}, box {', '.join(f'{x:g}' for x in row.box)}" for row in given if row.object_id is None]
    repeated = [place for place, times in Counter(places).items() if times > 1]
    warnings = []
    if unheard:
        warnings.append(f"{len(unheard)} of {len(wanted)} objects have no caption{rows.such_as(unheard)}")
    if repeated:
        warnings.append(f"{len(repeated)} boxes have several captions{rows.such_as(repeated)}")
    return warnings


def _sentences(predictions: Rows, references: Rows, rules: CaptionProtocol, jar: Path | None) -> Measures:
    """Scan2Cap's and LL3DA's `pred` JSON against their `corpus` JSON: texts by `scene|object|name`, boxes already judged."""
    wanted = rows.parse(references, rows.Texts, "corpus")
    # LL3DA gives an object without annotation the name `unknown`, and drops it.
    given = [row for row in rows.parse(predictions, rows.Texts, "pred") if not row.id.endswith("unknown")]
    found = {row.id: row for row in given}
    rows.check_once([row.id for row in wanted], "corpus")
    surplus = sorted(found.keys() - {row.id for row in wanted})
    if surplus:
        raise DataError(f"Expected keys of the corpus in pred, found {len(surplus)} others{rows.such_as(surplus)}.")
    several = [row.id for row in given if len(row.texts) != 1]
    if several:
        raise DataError(
            f"Expected one sentence a key in pred, found {len(several)} with another number{rows.such_as(several)}."
        )
    if rules.silence == "left-out":
        wanted = [row for row in wanted if row.id in found]
    said = [_sentence(_judged(found.get(row.id)), rules) for row in wanted]
    return ngrams(said, [[rules.reference(text) for text in row.texts] for row in wanted], jar=jar)


def _judged(row: rows.Texts | None) -> Spoken:
    """What a key of `pred` says: its evaluator has already put the empty sentence where no box was right."""
    return SILENCE if row is None or row.texts[0].split() == EMPTY.split() else Spoken(row.texts[0], 1.0)
