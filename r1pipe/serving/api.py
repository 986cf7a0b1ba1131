"""The HTTP API over a served model: questions in, answers out, every refusal one sentence.

The application is made before the model is loaded (a Bento is built without loading it); `attach` hands the model over.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from r1pipe.errors import DataError, MissingError, ParamsError
from r1pipe.params.section import Task
from r1pipe.response import identifier
from r1pipe.serving import guards, schema, telemetry
from r1pipe.serving.answer import (
    Answer,
    Ask,
    BusyError,
    Caption,
    Describe,
    LateError,
    ModelInfo,
    SceneRow,
    complaint,
)
from r1pipe.serving.docs import add_docs
from r1pipe.serving.events import STREAM, streamed

if TYPE_CHECKING:  # `service` says why
    from r1pipe.serving.served import ServedModel

logger = logging.getLogger(__name__)


def attach(app: FastAPI, served: "ServedModel") -> None:
    """Let the application answer with this model."""
    app.state.served = served


def attached(app: FastAPI) -> "ServedModel":
    """The model that the application answers with.

    Raises:
        HTTPException: 503 before it is loaded.
    """
    served: ServedModel | None = app.state.served
    if served is None:
        raise HTTPException(503, "Expected a loaded model, found it still loading.", {"retry-after": "5"})
    return served


# Asynchronous, though it waits for nothing: FastAPI runs others in a thread, which costs more than an answer's JSON.
async def _served(request: Request) -> "ServedModel":
    return attached(request.app)


Served = Annotated["ServedModel", Depends(_served)]


def create_app(*, token: str | None = None) -> FastAPI:
    """The API, without a model yet.

    Args:
        token: who asks must know it; None lets everybody ask.

    Raises:
        ParamsError: if the token is empty, which would look like a lock and be none.
    """
    if token is not None and not token.strip():
        raise ParamsError("Expected a token, or none at all, found an empty one.")
    app = FastAPI(
        title="R1",
        description="Ask a room: reasoning, an answer, boxes and the views it rests on.",
        responses=schema.refusals(401) if token else {},
        docs_url=None,
        redoc_url=None,
    )
    app.state.served = None
    app.add_middleware(guards.BoundedBody)
    if token is not None:
        app.add_middleware(guards.Authorized, token=token)
    app.add_middleware(guards.Logged)
    _handle_errors(app)
    add_docs(app)
    app.add_api_route("/", _front, include_in_schema=False)
    app.add_api_route("/scenes", _scenes, response_model=list[SceneRow], responses=schema.refusals(503))
    app.add_api_route("/model", _model, response_model=ModelInfo, responses=schema.refusals(503))
    _add(app, "/answer", _answer, openapi_extra=schema.ANSWER_BODY)
    _add(app, "/describe", _describe)
    _add(app, "/caption", _caption)
    for path, task in (("/locate", "grounding"), ("/chat", "dialogue"), ("/plan", "planning")):
        _add(app, path, _verb(task), name=path[1:])  # type: ignore[arg-type]
    return app


def _add(app: FastAPI, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
    """A route that answers, whole or as a stream."""
    responses = {200: schema.STREAMED, **schema.refusals(400, 404, 413, 422, 503, 504)}
    app.add_api_route(path, endpoint, methods=["POST"], response_model=Answer, responses=responses, **options)


def _handle_errors(app: FastAPI) -> None:
    for error, status in ((MissingError, 404), (DataError, 422), (BusyError, 503), (LateError, 504)):
        app.add_exception_handler(error, _refusal(status))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)


def _refusal(status: int) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        headers = {}
        if isinstance(error, BusyError):
            telemetry.REFUSED.labels("busy").inc()
            headers = {"retry-after": str(error.retry_after)}
        return JSONResponse({"detail": str(error)}, status, headers)

    return refuse


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": complaint(error)}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    """The log has the trace, the sender has what finds it there."""
    logger.error("a request failed", exc_info=error)
    number = telemetry.request_id.get()
    detail = f"Expected an answer, found a fault of the server; its log has it at request {number}."
    return JSONResponse({"detail": detail}, 500, {"x-request-id": number})


async def _front() -> RedirectResponse:
    """The page."""
    return RedirectResponse(guards.PAGE)


def _scenes(served: Served) -> list[SceneRow]:
    """The rooms that can be asked about."""
    return served.rows()


def _model(served: Served) -> ModelInfo:
    """Which model answers, and what it was made from."""
    return ModelInfo(model=served.name, lineage=served.lineage)


async def _describe(request: Request, body: Describe, served: Served) -> Any:
    """Describe a room."""
    return await _respond(request, Ask(scene_id=body.scene_id, question=body.question, task="description"), served)


async def _caption(request: Request, body: Caption, served: Served) -> Any:
    """Describe one detected object."""
    question = f"describe {identifier(body.object)}."
    return await _respond(request, Ask(scene_id=body.scene_id, question=question, task="captioning"), served)


def _verb(task: Task) -> Callable[..., Awaitable[Any]]:
    async def verb(request: Request, body: Ask, served: Served) -> Any:
        return await _respond(request, body.model_copy(update={"task": task}), served)

    verb.__doc__ = f"`POST /answer` with the task `{task}`."
    return verb


async def _answer(request: Request, served: Served) -> Any:
    """Answer a question about a known room (JSON), or about an uploaded scan (a form with the file `scene`)."""
    start = time.perf_counter()
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        with served.rooms.slot():
            async with request.form(max_files=1, max_fields=20) as form:
                fields = await _form_fields(form, served)
    else:
        fields = _json(await request.body(), "the body")
    return await _respond(request, Ask.read(fields), served, received=time.perf_counter() - start)


async def _respond(request: Request, ask: Ask, served: "ServedModel", *, received: float = 0.0) -> Answer | Response:
    """The answer; as it grows, where the sender accepts a stream."""
    telemetry.observe_steps({"received": received})
    if STREAM in request.headers.get("accept", ""):
        return streamed(served, ask, received=received)
    said = asyncio.wrap_future(served.begin(ask))
    try:
        whole = await asyncio.wait_for(said, served.settings.serve.timeout_s)
    except TimeoutError:
        raise served.late() from None
    return served.finish(ask, whole).received_in(received)


async def _form_fields(form: FormData, served: "ServedModel") -> dict[str, Any]:
    """A form's fields as `Ask` has them; an uploaded scan becomes a scene id."""
    fields: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
    for key in {"pose", "history"} & fields.keys():
        fields[key] = _json(fields[key].encode("utf-8", "surrogatepass"), key)
    upload = form.get("scene")
    if isinstance(upload, UploadFile):
        content = await upload.read()
        fields["scene_id"] = await run_in_threadpool(served.add, content, upload.filename or "no name")
    return fields


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    # Beside text that does not parse: numbers of thousands of digits, and brackets deeper than Python's stack.
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON in {where}, found text that does not parse: {str(error)[:200]}.") from None
