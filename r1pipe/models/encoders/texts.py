"""CLIP's embeddings of the questions, made once in stage `encode`, so that training needs no CLIP.

Identifiers are numbers that CLIP never learnt, and they differ between annotations and detections: `<obj_007>` is embedded
as "object", so that a question keeps its embedding when its objects are renamed.

Shape suffixes: T texts of the table, N texts asked for, C CLIP width.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from r1pipe.errors import DataError, MissingError
from r1pipe.files import read_json, whole, write_json
from r1pipe.models.encoders.clip import Clip
from r1pipe.models.features import Float32

FOLDER = "texts"
"""Under the features, apart from the scenes."""

MAX_ASKED = 10_000
"""Texts beyond the table that are kept; the oldest is embedded again when it is asked for again."""

_IDENTIFIER = re.compile(r"<obj_\d+>")


def plain(text: str) -> str:
    """The text as CLIP reads it: every identifier as "object"."""
    return _IDENTIFIER.sub("object", text)


class TextTable:
    """Unit vectors by text; texts beyond the table need a Clip."""

    def __init__(self, texts: Sequence[str], embeddings_TC: Float32, clip: Clip | None = None) -> None:
        if len(texts) != len(embeddings_TC):
            raise DataError(f"Expected one embedding a text, found {len(texts)} texts and {len(embeddings_TC)} rows.")
        self.texts, self.embeddings, self.clip = tuple(texts), embeddings_TC, clip
        self._rows = dict(zip(self.texts, embeddings_TC, strict=True))
        self._asked: dict[str, Float32] = {}

    @classmethod
    def embed(cls, texts: Iterable[str], clip: Clip) -> Self:
        """The table of these texts, each once, sorted."""
        distinct = sorted({plain(text) for text in texts})
        return cls(distinct, clip.encode_text(distinct), clip)

    def save(self, features: Path) -> None:
        """Write `texts/texts.safetensors` and `texts/texts.json` under the features."""
        with whole(features / FOLDER) as draft:
            draft.mkdir()
            save_file({"embeddings": np.ascontiguousarray(self.embeddings)}, draft / "texts.safetensors")
            write_json(draft / "texts.json", list(self.texts))

    @classmethod
    def load(cls, features: Path, clip: Clip | None = None) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingError: if the features have no texts.
            DataError: if the files are damaged or do not belong together.
        """
        texts = read_json(features / FOLDER / "texts.json")
        path = features / FOLDER / "texts.safetensors"
        try:
            embeddings_TC = load_file(path)["embeddings"]
        except FileNotFoundError:
            raise MissingError(f"Expected the embeddings of the questions at {path}, found no such file.") from None
        except (SafetensorError, KeyError) as error:
            raise DataError(f"Expected embeddings in {path}, found a file without them: {error}.") from None
        return cls(texts, embeddings_TC, clip)

    def lookup(self, texts: Sequence[str]) -> Float32:
        """One unit vector a text, `(N, C)`; a text beyond the table is embedded now, and kept.

        Raises:
            MissingError: if a text is not in the table and there is no Clip.
        """
        keys = [plain(text) for text in texts]
        rows = {key: row for key in keys if (row := self._rows.get(key, self._asked.get(key))) is not None}
        unknown = sorted(set(keys) - rows.keys())
        if unknown and self.clip is None:
            raise MissingError(
                f"Expected texts that stage encode embedded ({len(self.texts)} of them), "
                f"found {len(unknown)} others, such as {unknown[0][:80]!r}."
            )
        if unknown and self.clip is not None:
            new = dict(zip(unknown, self.clip.encode_text(unknown), strict=True))
            rows |= new
            self._keep(new)
        return np.stack([rows[key] for key in keys]) if keys else self.embeddings[:0]

    def _keep(self, new: Mapping[str, Float32]) -> None:
        """A server is asked for months: what it keeps is bounded."""
        self._asked.update(new)
        for oldest in list(self._asked)[: max(0, len(self._asked) - MAX_ASKED)]:
            self._asked.pop(oldest, None)  # another thread may have been first
