"""What the OpenAPI document says beyond what FastAPI reads from the types."""

from typing import Any

from r1pipe.serving.answer import EXAMPLE, Ask, Refusal
from r1pipe.serving.events import STREAM

_REASONS = {
    400: "The body does not parse.",
    401: "The token is not the server's.",
    404: "There is no such room.",
    413: "The request is too large.",
    422: "The question or the scan is not what it should be.",
    503: "Too much is asked at once, or the model is still loading; `Retry-After` says when to come again.",
    504: "The answer took too long.",
}
STREAMED = {
    "description": 'The answer; with `accept: text/event-stream` events `text` (`{"text": piece}`) as the model speaks, '
    'then `answer`, or `error` (`{"detail": sentence}`).',
    "content": {STREAM: {"schema": {"type": "string"}}},
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of these statuses, each a sentence."""
    return {status: {"model": Refusal, "description": _REASONS[status]} for status in statuses}


_FORM = {
    "type": "object",
    "required": ["scene", "question"],
    "properties": {
        "scene": {
            "type": "string",
            "format": "binary",
            "description": "A scan: `.ply`, `.npz` (`xyz`, `rgb`), `.glb` or `.obj` with coloured vertices, or one of these with `.gz`.",
        },
        "question": {"type": "string", "minLength": 1, "maxLength": 2000},
        "task": {"type": "string"},
        "pose": {"type": "string", "description": "JSON."},
        "history": {"type": "string", "description": "JSON."},
    },
}
ANSWER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            # The verbs take the same body, so that the document has its schema.
            "application/json": {"schema": {"$ref": f"#/components/schemas/{Ask.__name__}"}, "example": EXAMPLE},
            "multipart/form-data": {
                "schema": _FORM,
                "example": {"question": EXAMPLE["question"], "scene": "@room.ply"},
            },
        },
    }
}
"""A room by its id, or a scan; FastAPI knows one kind of body a route."""
