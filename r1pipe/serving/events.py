"""An answer as server-sent events: `text` for each piece of the completion, then `answer`, or `error` with its sentence."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi.sse import EventSourceResponse, format_sse_event

from r1pipe.errors import R1Error
from r1pipe.serving.answer import Ask

if TYPE_CHECKING:  # `service` says why
    from r1pipe.serving.served import ServedModel

STREAM = "text/event-stream"


def streamed(served: "ServedModel", ask: Ask, *, received: float) -> EventSourceResponse:
    """The response whose events come as the model says them.

    Raises:
        MissingError, DataError, BusyError: as `ServedModel.begin`, before there is a response.
    """
    loop = asyncio.get_running_loop()
    texts: asyncio.Queue[str | None] = asyncio.Queue()

    def put(text: str | None) -> None:
        loop.call_soon_threadsafe(texts.put_nowait, text)

    said = served.begin(ask, put)
    said.add_done_callback(lambda _: put(None))

    async def events() -> AsyncIterator[bytes]:
        try:
            async with asyncio.timeout(served.settings.serve.timeout_s):
                async for piece in _pieces(texts):
                    yield _event("text", json.dumps({"text": piece}))
            answer = served.finish(ask, said.result()).received_in(received)
            yield _event("answer", answer.model_dump_json())
        except TimeoutError:
            yield _event("error", json.dumps({"detail": str(served.late())}))
        except R1Error as error:
            yield _event("error", json.dumps({"detail": str(error)}))
        finally:
            said.cancel()  # of a sender who left; does nothing once the model has begun

    # nginx would keep the events until there are enough of them.
    return EventSourceResponse(events(), headers={"cache-control": "no-store", "x-accel-buffering": "no"})


async def _pieces(texts: "asyncio.Queue[str | None]") -> AsyncIterator[str]:
    """What each text adds to the one before."""
    before = ""
    while (text := await texts.get()) is not None:
        if len(text) > len(before):
            yield text[len(before) :]
            before = text


def _event(name: str, data: str) -> bytes:
    return format_sse_event(event=name, data_str=data)
