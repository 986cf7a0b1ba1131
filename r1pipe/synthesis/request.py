"""A request to a language model: everything that its reply depends on, and the name under which it is paid once."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from r1pipe.params.chains import Gemini
from r1pipe.synthesis.prompts import Prompt


@dataclass(frozen=True)
class Request:
    """A prompt with the settings under which it is asked."""

    prompt: Prompt
    model: str
    temperature: float
    thinking_budget: int
    max_output_tokens: int

    @classmethod
    def of(cls, prompt: Prompt, params: Gemini) -> "Request":
        """The request that these parameters make of a prompt."""
        return cls(prompt, params.model, params.temperature, params.thinking_budget, params.max_output_tokens)

    @cached_property
    def record(self) -> str:
        """The request as JSON; pictures by the SHA-256 of their pixels."""
        fields: dict[str, Any] = {
            "model": self.model,
            "temperature": self.temperature,
            "thinking_budget": self.thinking_budget,
            "max_output_tokens": self.max_output_tokens,
            "version": self.prompt.version,
            "system": self.prompt.system,
            "prompt": self.prompt.text,
            "pictures": [picture.digest for picture in self.prompt.pictures],
        }
        return json.dumps(fields, sort_keys=True, ensure_ascii=False)

    @cached_property
    def key(self) -> str:
        """The SHA-256 of the record."""
        return hashlib.sha256(self.record.encode()).hexdigest()


class Reply(NamedTuple):
    """What came back: a text, or why there is none."""

    text: str | None
    refusal: str | None
    """`blocked`, `truncated`, `empty`, `oversized`, `malformed`, `unavailable`, `refused`; after a colon, what was said."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    """Of the text and of the service's own thinking: both are paid."""
