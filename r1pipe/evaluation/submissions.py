"""Prediction and reference files as benchmarks publish them, read as rows of ours; says which format it recognised.

A row of an official file gets the benchmark's own id, and the ids by which our readers know the same sample
(`scanqa-<scene>-<question>`), so that either kind of file can be scored against the other: the naming that covers most
of the references is taken.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1pipe.errors import DataError, MissingError
from r1pipe.files import read_json, read_jsonl

Row = dict[str, Any]


class Submission(NamedTuple):
    """The rows of a file, and what it was recognised as."""

    recognised: str
    rows: list[Row]
    """As `rows` parses them; `ids` holds the names of a row without `id`, the benchmark's own first."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as keys that repeat."""


class Format(NamedTuple):
    """One way to write predictions or references."""

    name: str
    has: tuple[str, ...]
    """The keys by which its rows are known."""
    read: Callable[[Row], Row]


def read_submission(path: Path) -> Submission:
    """A prediction or reference file: JSONL or JSON of ours, or a benchmark's JSON; a folder holds a file a scene.

    Raises:
        MissingError: if there is no such file.
        DataError: if its format is none of those known; the sentence names them.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".jsonl":
        return _rows(list(read_jsonl(path)), path, "JSONL")
    value = _value(path)
    if isinstance(value, list):
        return _rows(value, path, "JSON")
    if isinstance(value, dict):
        return _dictionary(value, path)
    raise DataError(f"Expected rows in {path}, found {type(value).__name__}.")


def _value(path: Path) -> Any:
    """A JSON value, or the rows of a JSONL file that has another suffix."""
    if path.suffix == ".json" or not path.is_file():
        return read_json(path)
    return list(read_jsonl(path))


def _rows(rows: list[Any], path: Path, kind: str) -> Submission:
    strange = next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if strange is not None:
        raise DataError(f"Expected JSON objects in {path}, found {type(rows[strange - 1]).__name__} in row {strange}.")
    if not rows:
        return Submission(f"r1pipe's {kind}", [])
    for known in _FORMATS:
        if "id" not in rows[0] and all(name in rows[0] for name in known.has):
            return Submission(known.name, [_read(known, row, number, path) for number, row in enumerate(rows, 1)])
    # Whatever else it is, `rows` says which field is missing.
    return Submission(f"r1pipe's {kind}", rows)


def _read(known: Format, row: Row, number: int, path: Path) -> Row:
    lacking = [name for name in known.has if name not in row]
    if lacking:
        raise DataError(f"Expected {known.name} in {path}, found no {lacking[0]!r} in row {number}.")
    return known.read(row)


def _named(source: str, row: Row, own: str, *parts: Any) -> list[str]:
    """The ids of a row: its benchmark's, our readers', and the parts with the usual signs between them."""
    known = [*([row["scene_id"]] if "scene_id" in row else []), *parts]
    return [own, "-".join(map(str, (source, *known))), *(sign.join(map(str, known)) for sign in ("-", "|", "_"))]


def _scanqa(row: Row) -> Row:
    top = row.get("answer_top10") or row.get("pred_answers_at10")
    if not isinstance(top, list) or not top:
        raise DataError(f"Expected answers in answer_top10, found {top!r} for {row.get('question_id')}.")
    return {"ids": _question_ids(row), "answer": top[0], "top10": top}


def _question_ids(row: Row) -> list[str]:
    number = str(row["question_id"])
    return [*_named("scanqa", row, number, number), *_named("sqa3d", row, number, number)[1:2]]


def _question(row: Row) -> Row:
    answers = [answer["answer"] if isinstance(answer, dict) else answer for answer in row["answers"]]
    return {"ids": _question_ids(row), "answers": answers, "question": row.get("question")}


def _grounded(row: Row) -> Row:
    unique = {} if "unique_multiple" not in row else {"unique": int(row["unique_multiple"]) == 0}
    own = "|".join(str(row[name]) for name in ("scene_id", "object_id", "ann_id"))
    described = {name: row[name] for name in ("scene_id", "object_id", "token") if "token" in row}
    return {
        "ids": _named("scanrefer", row, own, row["object_id"], row["ann_id"]),
        "boxes": [row["bbox"]],
        **unique,
        **described,
    }


def _multiple(row: Row) -> Row:
    parts = [row["object_id"], row["ann_id"]] if "object_id" in row else [row["ann_id"]]
    boxes = row["aabb"] if "aabb" in row else row["aabbs"]
    own = "|".join(map(str, (row["scene_id"], *parts)))
    return {"ids": _named("multi3drefer", row, own, *parts), "boxes": boxes}


def _exchange(row: Row) -> Row:
    return {"ids": [f"{row['scene_id']}-{row['question']}"], "answers": row["answers"], "question": row["question"]}


_FORMATS = (
    Format("ScanQA's answer_top10", ("question_id", "answer_top10"), _scanqa),
    Format("ScanQA's pred_answers_at10", ("question_id", "pred_answers_at10"), _scanqa),
    Format("ScanQA's or SQA3D's questions", ("question_id", "answers"), _question),
    Format("answers by question_id", ("question_id", "answer"), lambda row: {"ids": _question_ids(row), "answer": row["answer"]}),
    Format("answers by question_id", ("question_id", "prediction"), lambda row: {"ids": _question_ids(row), "answer": row["prediction"]}),
    Format("ScanRefer's boxes", ("scene_id", "object_id", "ann_id", "bbox"), _grounded),
    Format("Multi3DRefer's boxes", ("scene_id", "ann_id", "aabb"), _multiple),
    Format("Multi3DRefer's boxes", ("scene_id", "ann_id", "aabbs"), _multiple),
    Format("Video-3D-LLM's responses", ("sample_id", "pred_response"), lambda row: {"id": str(row["sample_id"]), "answer": row["pred_response"]}),
    Format("3D-LLM's exchanges", ("scene_id", "question", "answers"), _exchange),
)  # fmt: skip


def _dictionary(value: Mapping[str, Any], path: Path) -> Submission:
    if any(isinstance(value.get(key), list) for key in ("questions", "annotations")):
        return _sqa3d(value, path)
    values = list(value.values())
    if values and all(isinstance(item, list) and all(isinstance(text, str) for text in item) for item in values):
        return Submission("corpus/pred JSON", [{"id": key, "texts": texts} for key, texts in value.items()])
    if values and all(isinstance(item, list) and all(isinstance(row, dict) for row in item) for item in values):
        if any("caption" in row for item in values for row in item):
            rows = [{**row, "scene_id": scene} for scene, item in value.items() for row in item]
            return Submission("Scan2Cap's boxes and captions by scene", rows)
        return _rows([{"scene_id": scene, **row} for scene, item in value.items() for row in item], path, "JSON")
    if values and all(isinstance(item, str) for item in values):
        return Submission("answers by id", [{"id": key, "answer": text} for key, text in value.items()])
    raise DataError(
        f"Expected in {path} rows, SQA3D's questions or annotations, a dictionary of texts (corpus/pred), or boxes and "
        f"captions by scene, found a dictionary with {', '.join(list(value)[:3]) or 'nothing'}."
    )


def _sqa3d(value: Mapping[str, Any], path: Path) -> Submission:
    """SQA3D's questions and annotations, which are two files: the other one is found beside the one that is named."""
    other = path.with_name(
        path.name.replace("sqa_annotations", "questions")
        if "annotations" in value
        else path.name.replace("questions", "sqa_annotations")
    )
    if other == path or not other.is_file():
        raise MissingError(f"Expected SQA3D's other file beside {path}, as {other.name}, found none.")
    both = {**value, **read_json(other)}
    asked = {row["question_id"]: row for row in both["questions"]}
    lacking = [row["question_id"] for row in both["annotations"] if row["question_id"] not in asked]
    if lacking:
        raise DataError(
            f"Expected the question of every annotation in {path}, found {len(lacking)} without ({lacking[0]})."
        )
    rows = [_question({**asked[row["question_id"]], **row}) for row in both["annotations"]]
    return Submission("SQA3D's questions and annotations", rows)


def by_object(references: Submission) -> Submission:
    """ScanRefer's descriptions with their boxes (Scan2Cap's benchmark), gathered as the captions of each object."""
    if not all("token" in row for row in references.rows):
        return references
    objects: dict[tuple[str, str], Row] = {}
    for row in references.rows:
        new = {"scene_id": row["scene_id"], "object_id": row["object_id"], "box": row["boxes"][0], "captions": []}
        found = objects.setdefault((row["scene_id"], str(row["object_id"])), new)
        found["captions"].append(" ".join(map(str, row["token"])))
    return references._replace(rows=list(objects.values()))


def _folder(path: Path) -> Submission:
    files = sorted(path.glob("*.json"))
    if not files:
        raise MissingError(f"Expected a JSON file a scene in {path}, found none.")
    rows = [{"scene_id": file.stem, **row} for file in files for row in read_json(file)]
    return _rows(rows, path, "JSON")


def pair(predictions: Submission, references: Submission) -> tuple[Submission, Submission]:
    """Both with one `id` a row, of the naming under which the two files agree most; later rows of one key count.

    LL3DA's evaluator keys by scene and question, and lets the later row of a key overwrite the earlier.
    """
    wanted = _best(references.rows, {name for row in predictions.rows for name in _names(row)})
    references = _overwritten(references._replace(rows=list(wanted)))
    known = {str(row["id"]) for row in references.rows if "id" in row}
    return predictions._replace(rows=list(_best(predictions.rows, known))), references


def _names(row: Row) -> Sequence[str]:
    return row["ids"] if "ids" in row else [str(row["id"])] if "id" in row else []


def _best(rows: list[Row], known: set[str]) -> Iterator[Row]:
    width = max((len(row["ids"]) for row in rows if "ids" in row), default=0)
    hits = [sum(row["ids"][i] in known for row in rows if len(row.get("ids", ())) > i) for i in range(width)]
    place = hits.index(max(hits)) if hits else 0
    for row in rows:
        if "ids" in row:
            yield {"id": row["ids"][min(place, len(row["ids"]) - 1)], **{k: v for k, v in row.items() if k != "ids"}}
        else:
            yield row


def _overwritten(references: Submission) -> Submission:
    if references.recognised != "3D-LLM's exchanges":
        return references
    last = {row["id"]: row for row in references.rows}
    lost = len(references.rows) - len(last)
    note = f"{lost} of {len(references.rows)} references repeat the scene and question of a later one, which counts"
    return references._replace(rows=list(last.values()), notes=(note,) if lost else ())
