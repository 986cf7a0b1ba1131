"""Captions of single objects against the objects' views (CLIP) and against what people wrote (sentence embeddings)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from r1pipe.errors import DataError, MissingError
from r1pipe.evaluation import rows
from r1pipe.evaluation.rules import ObjectProtocol
from r1pipe.metrics.intervals import mean
from r1pipe.metrics.ngrams import Measures
from r1pipe.metrics.retrieval import image_ranks, text_ranks, view_cosines
from r1pipe.models.encoders.clip import Clip

Rows = Sequence[Mapping[str, Any]]


def clip_measures(given: Rows, wanted: Rows, rules: ObjectProtocol, clip: str, folder: Path) -> Measures:
    """`clip_score` and `r_at_k` of captions and views.

    Args:
        given: predictions.
        wanted: references, every one with the same number of `images`.
        rules: who asks for whom, and the ranks.
        clip: a folder in open_clip's format, or open_clip's `name:tag`.
        folder: what the images' paths start from.

    Raises:
        MissingError: if the CLIP is not there.
        DataError: if the objects have different numbers of views, or an image is not there or cannot be read.
    """
    references = rows.parse(wanted, rows.ObjectReference, "object references")
    captions = rows.in_order(rows.parse(given, rows.ObjectCaption, "object captions"), references)
    counts = sorted({len(row.images) for row in references})
    if len(counts) > 1:
        raise DataError(f"Expected as many images of every object, found {counts[0]} to {counts[-1]}.")
    model = _clip(clip)
    text_NC = model.encode_text([row.caption for row in captions])
    view_NVC = np.stack([model.encode_images(_views(row, folder)) for row in references])
    measures = {"clip_score": mean(view_cosines(text_NC, view_NVC) * rules.clip_scale / 100)}
    ranks_N = image_ranks(text_NC, view_NVC) if rules.query == "image" else text_ranks(text_NC, view_NVC)[:, None]
    return measures | {f"r_at_{k}": mean((ranks_N < k).mean(axis=1)) for k in rules.ranks}


def _clip(name: str) -> Clip:
    if Path(name).is_dir():
        return Clip.load(Path(name))
    model, _, tag = name.partition(":")
    return Clip.load_published(model, tag or None)


def _views(row: rows.ObjectReference, folder: Path) -> NDArray[np.uint8]:
    """The views of an object, of the first one's size, `(V, H, W, 3)`."""
    views: list[NDArray[np.uint8]] = []
    for name in row.images:
        try:
            with Image.open(folder / name) as image:
                size = (views[0].shape[1], views[0].shape[0]) if views else image.size
                views.append(np.asarray(image.convert("RGB").resize(size)))
        except FileNotFoundError:
            raise DataError(f"Expected an image of {row.id} at {folder / name}, found none.") from None
        except UnidentifiedImageError:
            raise DataError(f"Expected an image of {row.id} at {folder / name}, found another kind of file.") from None
    return np.stack(views)


def sentence_measures(given: Rows, wanted: Rows, rules: ObjectProtocol, model: str) -> Measures:
    """`sentence_similarity`: the cosine of caption and reference, the best reference, times 100.

    Protocol: PointLLM's and LEO's, with Sentence-BERT models (`all-mpnet-base-v2`, `all-MiniLM-L6-v2`), or PointLLM's with
    SimCSE (`princeton-nlp/sup-simcse-roberta-large`). The model decides the number, so the result names it.

    Raises:
        MissingError: if the model is not there.
    """
    references = rows.parse(wanted, rows.ObjectReference, "object references")
    captions = rows.in_order(rows.parse(given, rows.ObjectCaption, "object captions"), references)
    name, _, revision = model.partition("@")
    texts = [text for row in references for text in row.captions]
    embedded = _embed(
        [*(row.caption or rules.empty for row in captions), *texts], name, revision or None, rules.pooling
    )
    mine_NC, theirs_SC = embedded[: len(captions)], embedded[len(captions) :]
    edges = np.cumsum([len(row.captions) for row in references])[:-1]
    best = [float((part @ own).max()) for own, part in zip(mine_NC, np.split(theirs_SC, edges), strict=True)]
    return {"sentence_similarity": mean(np.array(best))}


@torch.inference_mode()
def _embed(texts: Sequence[str], name: str, revision: str | None, pooling: str) -> NDArray[np.float32]:
    """Unit vectors of texts, `(N, C)`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        model = AutoModel.from_pretrained(name, revision=revision).eval()
    except (OSError, ValueError) as error:
        raise MissingError(f"Expected a sentence model at {name}, found none: {str(error).splitlines()[0]}.") from None
    parts = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(list(texts[start : start + 64]), padding=True, truncation=True, return_tensors="pt")
        output, mask_BL1 = model(**batch), batch["attention_mask"][..., None]
        mean_BC = (output.last_hidden_state * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
        chosen_BC = output.pooler_output if pooling == "pooler" else mean_BC
        parts.append(normalize(chosen_BC, dim=-1).float().numpy())
    return np.concatenate(parts)
