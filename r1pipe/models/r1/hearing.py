"""Hearing a batch of completions while it is generated: each row's text as it grows, its end as soon as it comes.

transformers' own streamers take a batch of one.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

Grown = Callable[[str], None]
"""Told all of a row's text so far."""


class Completion(NamedTuple):
    """What the model said, whole."""

    text: str
    num_tokens: int
    """The end included, where it came before the limit."""


Whole = Callable[[int, Completion], None]
"""Told a row's number and its completion."""


class Rows(BaseStreamer):
    """What `generate` puts in, told row by row; a row is over at its end token, whatever the others still say."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, ends: Collection[int], *, whole: Whole, grown: Mapping[int, Grown]
    ) -> None:
        """Tell `whole` of every row, and those of `grown` of their row's text as it grows."""
        self._tokenizer, self._ends = tokenizer, frozenset(ends)
        self._whole, self._grown = whole, grown
        self._tokens: dict[int, list[int]] | None = None

    def put(self, value: Tensor) -> None:
        """The prompts `(B, L)` first, then one token a row, `(B,)`."""
        if self._tokens is None:
            self._tokens = {row: [] for row in range(len(value))}
            return
        for row, token in enumerate(value.tolist()):
            if row not in self._tokens:
                continue  # it has ended; what comes now is padding
            self._tokens[row].append(token)
            if token in self._ends:
                self._end(row)
            elif row in self._grown:
                # A character that takes several tokens is no character before its last.
                self._grown[row](self._text(row).rstrip("\ufffd"))

    def end(self) -> None:
        """The limit has come: what was not over is over now."""
        for row in sorted(self._tokens or ()):
            self._end(row)

    def _end(self, row: int) -> None:
        text = self._text(row)
        assert self._tokens is not None
        self._whole(row, Completion(text, len(self._tokens.pop(row))))

    def _text(self, row: int) -> str:
        assert self._tokens is not None
        return str(self._tokenizer.decode(self._tokens[row], skip_special_tokens=True))
