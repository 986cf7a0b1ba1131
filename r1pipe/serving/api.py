"""The HTTP API over a served model: questions in, answers out, every refusal one sentence.

The application is made before the model is loaded (a Bento is built without loading it); `attach` hands the model over.
"""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1pipe.errors import DataError, MissingError
from r1pipe.files import explain
from r1pipe.params import Task
from r1pipe.response import identifier
from r1pipe.serving.answer import Answer, Ask, ModelInfo, Question, SceneRow
from r1pipe.serving.scans import MAX_BYTES
from r1pipe.serving.served import ServedModel

MAX_JSON_BYTES = 1_000_000
_FORM_OVERHEAD = 100_000
"""Bytes that a form's boundaries and other fields may add to a scan."""

Object = Annotated[int, Field(ge=0, le=999)]


class Describe(BaseModel):
    """Which room to describe."""

    model_config = ConfigDict(extra="forbid")
    scene_id: str
    question: Question = "describe the room."


class Caption(BaseModel):
    """Which detected object to describe."""

    model_config = ConfigDict(extra="forbid")
    scene_id: str
    object: Object


class BoundedBody:
    """Refuses a request whose body is larger than its content type may be, before it is in memory."""

    def __init__(
        self, app: ASGIApp, *, max_json: int = MAX_JSON_BYTES, max_form: int = MAX_BYTES + _FORM_OVERHEAD
    ) -> None:
        self.app = app
        self.max_json, self.max_form = max_json, max_form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is too large."""
        # Gradio bounds its own uploads.
        if scope["type"] != "http" or scope["path"].startswith("/ui"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        limit = self.max_form if is_form else self.max_json
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            refusal = JSONResponse({"detail": _too_large(limit)}, 413)
            await refusal(scope, receive, send)
            return
        await self.app(scope, _counting(receive, limit), send)


def _too_large(limit: int) -> str:
    return f"Expected a request of at most {limit:,} bytes, found a larger one."


def _counting(receive: Receive, limit: int) -> Receive:
    """The same messages, until they are too large: a chunked body declares no length."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return bounded


def attach(app: FastAPI, served: ServedModel) -> None:
    """Let the application answer with this model."""
    app.state.served = served


def attached(app: FastAPI) -> ServedModel:
    """The model that the application answers with.

    Raises:
        HTTPException: 503 before it is loaded.
    """
    served: ServedModel | None = app.state.served
    if served is None:
        raise HTTPException(503, "Expected a loaded model, found it still loading.")
    return served


def _served(request: Request) -> ServedModel:
    return attached(request.app)


Served = Annotated[ServedModel, Depends(_served)]


def create_app() -> FastAPI:
    """The API, without a model yet."""
    app = FastAPI(title="R1", description="Ask a room: reasoning, an answer, boxes and the views it rests on.")
    app.state.served = None
    app.add_middleware(BoundedBody)
    for error, status in ((MissingError, 404), (DataError, 422)):
        app.add_exception_handler(error, _refusal(status))
    app.add_api_route("/", _front, include_in_schema=False)
    app.add_api_route("/answer", _answer, methods=["POST"], response_model=Answer, openapi_extra=_ANSWER_BODY)
    app.add_api_route("/scenes", _scenes, response_model=list[SceneRow])
    app.add_api_route("/model", _model, response_model=ModelInfo)
    app.add_api_route("/describe", _describe, methods=["POST"], response_model=Answer)
    app.add_api_route("/caption", _caption, methods=["POST"], response_model=Answer)
    for path, task in (("/locate", "grounding"), ("/chat", "dialogue"), ("/plan", "planning")):
        app.add_api_route(path, _verb(task), methods=["POST"], response_model=Answer, name=path[1:])  # type: ignore[arg-type]
    return app


def _refusal(status: int) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status)

    return refuse


async def _front() -> RedirectResponse:
    """The page."""
    return RedirectResponse("/ui")


def _scenes(served: Served) -> list[SceneRow]:
    """The rooms that can be asked about."""
    return served.rows()


def _model(served: Served) -> ModelInfo:
    """Which model answers, and what it was made from."""
    return ModelInfo(model=served.name, lineage=served.lineage)


def _describe(body: Describe, served: Served) -> Answer:
    """Describe a room."""
    return served.answer(Ask(scene_id=body.scene_id, question=body.question, task="description"))


def _caption(body: Caption, served: Served) -> Answer:
    """Describe one detected object."""
    question = f"describe {identifier(body.object)}."
    return served.answer(Ask(scene_id=body.scene_id, question=question, task="captioning"))


def _verb(task: Task) -> Callable[[Ask, ServedModel], Answer]:
    def verb(body: Ask, served: Served) -> Answer:
        return served.answer(body.model_copy(update={"task": task}))

    verb.__doc__ = f"`POST /answer` with the task `{task}`."
    return verb


async def _answer(request: Request, served: Served) -> Answer:
    """Answer a question about a known room (JSON), or about an uploaded scan (a form with the file `scene`)."""
    start = time.perf_counter()
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=20) as form:
            fields = await _form_fields(form, served)
    else:
        fields = _json(await request.body(), "the body")
    try:
        ask = Ask.model_validate(fields)
    except ValidationError as error:
        raise DataError(f"Expected a question: {explain(error)}.") from None
    received = round(time.perf_counter() - start, 4)
    answer = await run_in_threadpool(served.answer, ask)
    return answer.model_copy(update={"timings": {"received": received, **answer.timings}})


async def _form_fields(form: FormData, served: ServedModel) -> dict[str, Any]:
    """A form's fields as `Ask` has them; an uploaded scan becomes a scene id."""
    fields: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
    for key in {"pose", "history"} & fields.keys():
        fields[key] = _json(fields[key].encode(), key)
    upload = form.get("scene")
    if isinstance(upload, UploadFile):
        content = await upload.read()
        fields["scene_id"] = await run_in_threadpool(served.add, content, upload.filename or "no name")
    return fields


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Expected JSON in {where}, found text that does not parse: {error}.") from None


_ANSWER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": Ask.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["scene", "question"],
                    "properties": {
                        "scene": {"type": "string", "format": "binary", "description": "A scan, `.ply` or `.npz`."},
                        "question": {"type": "string"},
                        "task": {"type": "string"},
                        "pose": {"type": "string", "description": "JSON."},
                        "history": {"type": "string", "description": "JSON."},
                    },
                }
            },
        },
    }
}
