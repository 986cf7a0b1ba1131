"""Whose rules a number follows: the same answers score otherwise under each public evaluator, so every number names its protocol.

A protocol is data: each difference between evaluators is an option with a name, and `r1pipe score --option` sets one.
Sources: the evaluators of ScanQA (`scripts/score.py`), SQA3D, LEO (`evaluator/`), Chat-Scene (`utils/eval.py`),
Video-3D-LLM (`llava/eval/`), LL3DA (`eval_utils/`), Scan2Cap (`lib/eval_helper.py`, `benchmark/eval.py`), ScanRefer (`benchmark/eval.py`),
M3DRef-CLIP (`m3drefclip/evaluation/`), Cap3D and PointLLM.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from r1pipe.errors import DataError
from r1pipe.evaluation.rules import AnswerProtocol, BoxProtocol, CaptionProtocol, ObjectProtocol, Protocol, Text
from r1pipe.files import explain

ScoreTask = Literal[
    "qa", "situated", "grounding", "multi-grounding", "captioning", "dialogue", "planning", "object-captioning"
]


_PTB, _RAW = Text(ptb=True), Text()
_CLEAN = Text(clean=True)
_SPACED = Text(spaces="single")
_LEO = AnswerProtocol(
    name="leo", rules="both sides cleaned, no PTB; the first reference that matches decides",
    prediction=_CLEAN, reference=_CLEAN, exact="clean", refined="first",
)  # fmt: skip
_CHAT_SCENE = AnswerProtocol(
    name="chat-scene", rules="prediction cleaned, references raw, n-grams of PTB tokens; exact match of cleaned strings",
    prediction=Text(final_stop="drop-one", clean=True, ptb=True), reference=_PTB, exact="clean", exact_final_stop="drop-one",
)  # fmt: skip
_LL3DA = AnswerProtocol(
    name="ll3da", rules="raw words, runs of spaces as one, case kept, no PTB; no exact match", prediction=_SPACED, reference=_RAW
)  # fmt: skip
_COCO = AnswerProtocol(
    name="coco", rules="n-grams of PTB tokens of the raw strings; no exact match", prediction=_PTB, reference=_PTB
)

PROTOCOLS: dict[ScoreTask, tuple[Protocol, ...]] = {
    "qa": (
        AnswerProtocol(
            name="scanqa",
            rules="ScanQA's score.py: exact match of raw strings, n-grams of PTB tokens; refined match is LEO's, of cleaned strings, in any order",
            prediction=_PTB, reference=_PTB, exact="raw", unigram_f=True,
        ),
        _LEO,
        _CHAT_SCENE,
        AnswerProtocol(
            name="video-3d-llm",
            rules="exact match of raw strings; n-grams of raw words, the prediction without final full stops, no PTB",
            prediction=Text(final_stop="drop-all"), reference=_RAW, exact="raw",
        ),
        _LL3DA,
    ),
    "situated": (
        AnswerProtocol(
            name="sqa3d",
            rules="exact and refined match of strings cleaned by SQA3D's clean_answer; n-grams of PTB tokens of the raw strings",
            prediction=_PTB, reference=_PTB, exact="clean",
        ),
        _LEO,
        _CHAT_SCENE,
        AnswerProtocol(
            name="video-3d-llm",
            rules="exact match of cleaned strings; n-grams of raw words, the prediction without final full stops, no PTB",
            prediction=Text(final_stop="drop-all"), reference=_RAW, exact="clean",
        ),
        AnswerProtocol(
            name="sqa3d-llm",
            rules="SQA3D's script for language models: em_refined is its accuracy, for which one word in common is enough; only the answer is cleaned",
            prediction=_PTB, reference=_PTB, exact="clean-answer", refined="shared-word",
        ),
    ),
    "dialogue": (_LL3DA, _COCO),
    "planning": (_LL3DA, _COCO),
    "grounding": (
        BoxProtocol(name="scanrefer", rules="Acc@k of the one predicted box, IoU >= k with 1e-8 added to the union; every query must be answered"),
        BoxProtocol(name="m3dref-clip", rules="Acc@k, IoU >= k with the float32 epsilon added to the union; every query must be answered", epsilon=2**-23),
        BoxProtocol(name="nr3d", rules="Acc over ground-truth proposals: the chosen box is the target's, IoU >= 0.9", thresholds=(0.9,)),
    ),
    "multi-grounding": (
        BoxProtocol(
            name="multi3drefer",
            rules="F1@k a query by optimal matching, IoU >= k with the float32 epsilon added to the union, mean over queries; no target: right without prediction",
            epsilon=2**-23,
        ),
    ),
    "captioning": (
        CaptionProtocol(
            name="chat-scene",
            rules="m@kIoU over annotated objects, IoU >= k, PTB tokens of `sos ... eos`; no caption there: `sos eos`",
            prediction=Text(wrap=True, ptb=True), reference=Text(wrap=True, ptb=True),
        ),
        CaptionProtocol(
            name="scan2cap",
            rules="m@kIoU, IoU > k, raw words of `sos ... eos`, references cut to 30 words; a box speaks for the object of nearest centre, the last box wins",
            prediction=Text(wrap=True, spaces="single"), reference=Text(max_words=30, wrap=True),
            inclusive=False, speaker="centre", several="last",
        ),
        CaptionProtocol(
            name="ll3da",
            rules="m@kIoU, IoU > k, raw words of `sos ... eos`, references cut to 30 words; a box speaks for the object that it overlaps most (Vote2Cap-DETR's)",
            prediction=Text(wrap=True, spaces="pairs"), reference=Text(max_words=30, wrap=True),
            inclusive=False, speaker="prediction",
        ),
        CaptionProtocol(
            name="scan2cap-benchmark",
            rules="F1 (and precision, recall) of sentence scores, captions and objects matched one to one, IoU >= k, raw words of `sos ... eos`",
            prediction=Text(wrap=True), reference=Text(wrap=True),
            speaker="matched", giou_overlap=False, unmatched="first", score="f1",
        ),
        CaptionProtocol(
            name="leo",
            rules="m@kIoU, IoU >= k, raw words of `sos ... eos`, full stops of the prediction apart; objects that nobody speaks for are left out",
            prediction=Text(wrap=True, stops="sentence"), reference=Text(wrap=True), silence="left-out",
        ),
        CaptionProtocol(
            name="video-3d-llm",
            rules="m@kIoU, IoU >= k, lower case, full stops and commas apart, `sos ... eos`; objects that nobody speaks for are left out",
            prediction=Text(wrap=True, lower=True, stops="apart"), reference=Text(wrap=True, lower=True, stops="apart"), silence="left-out",
        ),
    ),
    "object-captioning": (
        ObjectProtocol(
            name="cap3d",
            rules="CLIP score and R@k as Cap3D measures text against views: each view asks for its object's text among all; n-grams of PTB tokens",
            prediction=_PTB, reference=_PTB,
        ),
        ObjectProtocol(
            name="text-to-view",
            rules="CLIP score and R@k, each text asks for a view of its object among all views; n-grams of PTB tokens",
            prediction=_PTB, reference=_PTB, query="text",
        ),
        ObjectProtocol(
            name="pointllm",
            rules="the mean of smoothed sentence BLEU of raw words; its ROUGE and METEOR are other ones than coco-caption's, and are not given",
            prediction=_RAW, reference=_RAW, bleu="smoothed", empty="##",
        ),
        ObjectProtocol(
            name="pointllm-simcse",
            rules="as pointllm, with the pooler's output as a sentence's embedding",
            prediction=_RAW, reference=_RAW, bleu="smoothed", empty="##", pooling="pooler",
        ),
    ),
}  # fmt: skip
"""Per task; the first is the default."""


def protocol(task: ScoreTask, name: str | None, options: Mapping[str, str] | None = None) -> Protocol:
    """A task's protocol by name, its default for None, with some of its options set; its name then says which.

    Raises:
        DataError: if the task has no protocol of that name, or the protocol no such option or value.
    """
    known = PROTOCOLS[task]
    found = next((candidate for candidate in known if name in (None, candidate.name)), None)
    if found is None:
        raise DataError(f"Expected a protocol of {task} ({', '.join(p.name for p in known)}), found {name!r}.")
    return _with(found, options) if options else found


def _with(rules: Protocol, options: Mapping[str, str]) -> Protocol:
    values: dict[str, Any] = rules.model_dump()
    for key, text in options.items():
        part, _, inner = key.partition(".")
        place = values[part] if inner and isinstance(values.get(part), dict) else values
        place[inner if place is not values else key] = _value(text)
    values["name"] = "+".join([rules.name, *(f"{key}={text}" for key, text in options.items())])
    try:
        return type(rules).model_validate(values)
    except ValidationError as error:
        names = ", ".join(option_values(rules))
        raise DataError(f"Expected options of {rules.name} ({names}), found {explain(error)}.") from None


def _value(text: str) -> Any:
    """What an option's text means where its type alone does not say: `null`, and values parted by commas."""
    if text == "null":
        return None
    return tuple(part for part in text.split(",") if part) if "," in text else text


def option_values(rules: Protocol) -> dict[str, str]:
    """The options of a protocol, as `--option` takes them."""
    values: dict[str, str] = {}
    for name, value in rules:
        if isinstance(value, Text):
            values |= {f"{name}.{inner}": _written(item) for inner, item in value}
        elif name not in ("name", "rules"):
            values[name] = _written(value)
    return values


def options_help(rules: Protocol) -> dict[str, str]:
    """What each option means and takes; those of a text stand once, for `prediction.` and `reference.` alike."""
    helped: dict[str, str] = {}
    for name, field in type(rules).model_fields.items():
        if isinstance(getattr(rules, name), Text):
            texts = {f"prediction|reference.{inner}": _help(part) for inner, part in Text.model_fields.items()}
            helped |= texts
        elif name not in ("name", "rules"):
            helped[name] = _help(field)
    return helped


def _help(field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split())
    return f"{'|'.join(get_args(field.annotation))}. {meaning}" if get_origin(field.annotation) is Literal else meaning


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
