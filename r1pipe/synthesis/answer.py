"""What the Gemini API sends back, read into a reply: a body of any shape becomes a text or a reason, never an exception."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from r1pipe.files import explain
from r1pipe.synthesis.request import Reply

_CHARS_A_TOKEN = 20
"""No token is longer; a text that would need longer ones was not written under the request's limit."""

_FINISHED = ("STOP", "FINISH_REASON_UNSPECIFIED", None)


class _Fields(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


def _none_is_empty(value: Any) -> Any:
    return [] if value is None else value


class _Part(_Fields):
    text: str | None = None
    thought: bool | None = None


class _Content(_Fields):
    parts: Annotated[list[_Part], BeforeValidator(_none_is_empty)] = []


class _Candidate(_Fields):
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(_Fields):
    block_reason: str | None = None


class _Usage(_Fields):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Body(_Fields):
    """GenerateContentResponse, the fields that matter; ai.google.dev/api/generate-content."""

    candidates: Annotated[list[_Candidate], BeforeValidator(_none_is_empty)] = []
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None


def read(body: str, *, max_output_tokens: int) -> Reply:
    """The reply in a response's body, under the limit that its request set."""
    try:
        parsed = _Body.model_validate_json(body)
    except ValidationError as error:
        return Reply(None, f"malformed: {explain(error)}")
    usage = parsed.usage_metadata or _Usage()
    text = _text(parsed)
    refusal = _why_not(parsed, text, _CHARS_A_TOKEN * max_output_tokens)
    spent = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return Reply(text if refusal is None else None, refusal, usage.prompt_token_count or 0, spent)


def _text(body: _Body) -> str:
    """What the first candidate says, its thoughts left out."""
    content = body.candidates[0].content if body.candidates else None
    return "".join(part.text or "" for part in content.parts if not part.thought) if content is not None else ""


def _why_not(body: _Body, text: str, max_chars: int) -> str | None:
    blocked = body.prompt_feedback and body.prompt_feedback.block_reason
    if blocked:
        return f"blocked: prompt, {blocked}"
    if not body.candidates:
        return "empty: no candidate"
    finish = body.candidates[0].finish_reason
    if finish == "MAX_TOKENS":
        return "truncated: MAX_TOKENS"
    if finish not in _FINISHED:
        return f"blocked: {finish}"
    if len(text) > max_chars:
        return f"oversized: {len(text)} characters"
    return None if text.strip() else "empty: no text"
