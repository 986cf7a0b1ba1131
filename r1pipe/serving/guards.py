"""What stands before the API: request ids and the log, who may ask, and how large a request may be.

ASGI middleware, not Starlette's `BaseHTTPMiddleware`, which would hold back a stream.
"""

import base64
import binascii
import hmac
import logging
import re
import time
import uuid

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1pipe.serving import telemetry
from r1pipe.serving.scans import MAX_BYTES

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 1_000_000
PAGE = "/ui"
_FORM_OVERHEAD = 100_000
"""Bytes that a form's boundaries and other fields may add to a scan."""

_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)


class Logged:
    """Gives every request an id (its own `x-request-id`, where that is a plain one), says it back, and logs a line."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("x-request-id", "")
        telemetry.request_id.set(wanted if _REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex)
        start, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = telemetry.request_id.get()
                # The page's server lets other origins in when it is asked; here none is.
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
            await send(message)

        try:
            await self.app(scope, receive, answer)
        finally:
            fields = {"method": scope["method"], "path": scope["path"], "status": status}
            seconds = round(time.perf_counter() - start, 4)
            level = logging.DEBUG if scope["path"].startswith(PAGE) else logging.INFO
            logger.log(level, "request", extra={"fields": fields | {"seconds": seconds}})


class Authorized:
    """Lets in who knows the token: `Authorization: Bearer <token>`, or in a browser as the password, whatever the name."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self.app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or ask for the token."""
        if scope["type"] == "lifespan" or self._knows(Headers(scope=scope).get("authorization", "")):
            await self.app(scope, receive, send)
            return
        # A browser asks its user only where Basic is offered.
        offered = 'Basic realm="r1"' if scope["path"] == "/" or scope["path"].startswith(PAGE) else 'Bearer realm="r1"'
        detail = {"detail": "Expected the server's token, found none or another."}
        await JSONResponse(detail, 401, {"www-authenticate": offered})(scope, receive, send)

    def _knows(self, authorization: str) -> bool:
        scheme, _, said = authorization.partition(" ")
        given = said.strip().encode() if scheme.lower() == "bearer" else b""
        if scheme.lower() == "basic":
            given = _password(said)
        return hmac.compare_digest(given, self._token)


def _password(said: str) -> bytes:
    try:
        return base64.b64decode(said, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


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
        if scope["type"] != "http" or scope["path"].startswith(PAGE):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").startswith("multipart/form-data")
        limit = self.max_form if is_form else self.max_json
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdecimal() or len(declared) > 18 or int(declared) > limit:
            await JSONResponse({"detail": _too_large(limit)}, 413)(scope, receive, send)
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
