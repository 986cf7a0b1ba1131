"""What requests cost, before they are sent and after."""

import re
from typing import NamedTuple

from r1pipe.errors import R1Error
from r1pipe.params.chains import Gemini
from r1pipe.synthesis.request import Reply, Request

_PICTURE_TOKENS = 258
"""Of a picture of at most 384 x 384 pixels; ai.google.dev/gemini-api/docs/tokens."""

_PIECE = re.compile(r"[A-Za-z]{1,6}|\d|[^\sA-Za-z\d]")
"""About one token: Gemini splits numbers into digits, and prompts are full of them."""

_MILLION = 1e6


class Size(NamedTuple):
    """Tokens of a request and its answer."""

    prompt_tokens: int
    output_tokens: int


def size_at_most(request: Request) -> Size:
    """An estimate of the prompt, and the longest answer."""
    prompt = request.prompt
    words = len(_PIECE.findall(prompt.system)) + len(_PIECE.findall(prompt.text))
    return Size(words + _PICTURE_TOKENS * len(prompt.pictures), request.max_output_tokens)


def dollars(size: Size | Reply, params: Gemini, *, batch: bool) -> float:
    """The price of so many tokens."""
    price = params.price
    whole = (size.prompt_tokens * price.prompt + size.output_tokens * price.output) / _MILLION
    return whole * params.batch_price if batch else whole


class Till:
    """Refuses a request where it, and all that are under way, could cost more than is left of the budget."""

    def __init__(self, params: Gemini) -> None:
        self._params = params
        self._reserved = 0.0

    def reserve(self, request: Request, spent: float, *, batch: bool = False) -> float:
        """Set aside what a request costs at most, in dollars; `release` it when the reply is paid.

        Raises:
            R1Error: if the budget could be exceeded.
        """
        budget = self._params.budget
        if budget is None and not batch:
            return 0.0
        most = dollars(size_at_most(request), self._params, batch=batch)
        if budget is not None and spent + self._reserved + most > budget:
            raise R1Error(
                f"Expected to stay below ${budget:.2f} (synthesize.gemini.budget), found ${spent:.2f} spent and up to "
                f"${self._reserved + most:.2f} under way; with a larger budget the run goes on, nothing is paid twice."
            )
        self._reserved += most
        return most

    def release(self, reserved: float) -> None:
        """Free what `reserve` set aside."""
        self._reserved -= reserved
