"""The options in which evaluators differ: how a sentence becomes tokens, what is compared, and who speaks for whom."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from r1pipe.metrics.answers import Match, clean_answer, match, match_any_word, match_leo
from r1pipe.metrics.dense import unwrap, wrap
from r1pipe.metrics.tokens import tokenize


class Options(BaseModel):
    """Named options; none that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Text(Options):
    """From a sentence to the tokens, separated by spaces, that the n-gram metrics see; applied in this order."""

    final_stop: Literal["keep", "drop-one", "drop-all"] = "keep"
    """Whether the full stop at the end goes."""
    clean: bool = False
    """SQA3D's `clean_answer`."""
    max_words: int | None = None
    """Words kept."""
    wrap: bool = False
    """Between `sos` and `eos`; a sentence that stands there already is not wrapped again."""
    lower: bool = False
    """Lower case."""
    stops: Literal["keep", "sentence", "apart"] = "keep"
    """`sentence`: a full stop before a space becomes a token; `apart`: every full stop and comma does."""
    spaces: Literal["keep", "pairs", "single"] = "keep"
    """`pairs`: two spaces become one, once; `single`: runs of spaces become one. ROUGE-L counts what two spaces enclose."""
    ptb: bool = False
    """coco-caption's tokens: PTB, lower case, punctuation dropped."""

    def __call__(self, text: str) -> str:
        """The tokens of a sentence."""
        text = _final_stop(text, self.final_stop)
        text = clean_answer(text) if self.clean else text
        if self.wrap:
            text = unwrap(text)
        if self.max_words is not None:
            text = " ".join(text.split()[: self.max_words])
        text = wrap(text) if self.wrap else text
        text = _stops(text.lower() if self.lower else text, self.stops)
        text = _spaces(text, self.spaces)
        return " ".join(tokenize(text)) if self.ptb else text


def _final_stop(text: str, rule: str) -> str:
    if rule == "drop-one":
        return text.removesuffix(".")
    return text.rstrip(".") if rule == "drop-all" else text


def _stops(text: str, rule: str) -> str:
    if rule == "apart":
        return text.replace(".", " . ").replace(",", " , ")
    return text.replace(". ", " . ") if rule == "sentence" else text


def _spaces(text: str, rule: str) -> str:
    if rule == "single":
        return " ".join(word for word in text.split(" ") if word)
    return text.replace("  ", " ") if rule == "pairs" else text


_REFINED = {"any": match, "first": match_leo, "shared-word": match_any_word}


class AnswerProtocol(Options):
    """How textual answers are compared."""

    name: str
    rules: str
    prediction: Text
    reference: Text
    exact: Literal["raw", "clean", "clean-answer", "none"] = "none"
    """What exact match compares: the strings as they stand, both cleaned, or the cleaned answer with references as they stand;
    `none` where the benchmark has none."""
    exact_final_stop: Literal["keep", "drop-one"] = "keep"
    """Whether the prediction loses a full stop at its end before it is compared."""
    refined: Literal["any", "first", "shared-word"] = "any"
    """`any` reference may match, and an empty answer contains nothing; `first`: LEO's, where the first one that matches decides;
    `shared-word`: one word in common with the first reference is enough."""
    unigram_f: bool = False
    """Whether ScanQA's F-value is given."""

    def compare(self, answer: str, references: Sequence[str]) -> Match:
        """Exact and refined match; refined match is of cleaned strings, also where exact match is of raw ones."""
        cleaned = clean_answer(_final_stop(answer, self.exact_final_stop))
        compared = _REFINED[self.refined](
            cleaned, references if self.exact == "clean-answer" else [clean_answer(text) for text in references]
        )
        if self.exact != "raw":
            return compared
        exact = answer in references
        return Match(exact, exact or compared.refined)


class CaptionProtocol(Options):
    """How captions of boxes are compared."""

    name: str
    rules: str
    prediction: Text
    reference: Text
    thresholds: tuple[float, ...] = (0.25, 0.5)
    """The IoUs k, parted by commas."""
    inclusive: bool = True
    """Whether an IoU of exactly k counts."""
    epsilon: float = 1e-8
    """Added to the union of two boxes."""
    speaker: Literal["object", "prediction", "centre", "matched"] = "object"
    """Of captions without an object's id: `object` hears the box that overlaps it most; a `prediction` speaks for the
    object that it overlaps most; `centre`: for the object whose centre is nearest; `matched`: one to one, by GIoU."""
    giou_overlap: bool = True
    """Whether that GIoU counts what two boxes share; Scan2Cap's benchmark loses it."""
    unmatched: Literal["silent", "first"] = "silent"
    """Whether an object that the matching leaves over hears nobody, or the scene's `first` caption."""
    several: Literal["best", "last"] = "best"
    """Which of several captions for one object counts: that of highest IoU, the first on ties, or the last one."""
    silence: Literal["scored", "left-out"] = "scored"
    """Whether an object that nobody speaks for is scored as the empty sentence `sos eos`."""
    score: Literal["corpus", "f1"] = "corpus"
    """`corpus`: of all objects' sentences; `f1`: scores of single sentences at IoU k, summed, over predictions and over objects."""


class BoxProtocol(Options):
    """How boxes are compared."""

    name: str
    rules: str
    thresholds: tuple[float, ...] = (0.25, 0.5)
    """The IoUs k, parted by commas."""
    epsilon: float = 1e-8
    """Added to the union of two boxes: an IoU of exactly 0.5 is a miss with it, as in the official evaluators."""


class ObjectProtocol(Options):
    """How captions of single objects are compared."""

    name: str
    rules: str
    prediction: Text
    reference: Text
    ranks: tuple[int, ...] = (1, 5, 10)
    """k of R@k."""
    query: Literal["image", "text"] = "image"
    """Who asks: each view for its object's text among all texts (Cap3D), or each text for one of its object's views."""
    bleu: Literal["corpus", "smoothed"] = "corpus"
    """`corpus`: coco-caption's, with its other metrics; `smoothed`: the mean of nltk's sentence BLEU, and nothing beside it."""
    empty: str = ""
    """What stands for an empty prediction."""
    pooling: Literal["mean", "pooler"] = "mean"
    """What a sentence model's embedding is: the mean of the last hidden states (SBERT), or the pooler's output (SimCSE)."""
    clip_scale: float = 250.0
    """CLIP score = scale times cosine. Cap3D prints 250; on our 0..100 that is a cosine of 0.4 for 100."""


Protocol = AnswerProtocol | CaptionProtocol | BoxProtocol | ObjectProtocol
