"""When a service that did not answer is asked again, and when not."""

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from google.genai.errors import APIError

from r1pipe.errors import R1Error
from r1pipe.params.chains import Gemini

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Failure = APIError | httpx.RequestError

_BUSY = (408, 429)
_SERVER_ERRORS = 500
_NOT_FOR_US = (401, 403, 404)
"""Key, permission, model: no request of the run would fare better."""

_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


class UnansweredError(R1Error):
    """One request was not answered; others may be."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"Expected an answer from the Gemini API, found: {reason}, {detail}.")
        self.refusal = f"{reason}: {detail}"
        """As a reply has it."""


async def patiently(
    send: Callable[[], Awaitable[Answer]], params: Gemini, *, given_up: Callable[[], bool] = lambda: False
) -> Answer:
    """The answer, after waiting where the service is busy: exponential back-off with jitter, or as long as it says.

    Args:
        send: one attempt.
        params: how many, and how long to wait between two.
        given_up: whether nobody wants the answer any more; asked before each further attempt.

    Raises:
        UnansweredError: if the service refuses this request, or does not answer at any attempt.
        R1Error: if it refuses all of them, or asks for a longer wait than `max_wait_s`.
    """
    for attempt in range(1, params.attempts + 1):
        try:
            return await send()
        except (APIError, httpx.RequestError) as error:
            _stop_for(error)
            if not _passes(error):
                raise UnansweredError("refused", _said(error)) from error
            if attempt == params.attempts or given_up():
                raise UnansweredError(
                    "unavailable", f"{_said(error)}, attempt {attempt} of {params.attempts}"
                ) from error
            wait = _wait(error, attempt, params)
            logger.debug("Gemini: %s, next attempt in %.1f s", _said(error), wait)
            await asyncio.sleep(wait)
    raise AssertionError


def _stop_for(error: Failure) -> None:
    if isinstance(error, APIError) and error.code in _NOT_FOR_US:
        raise R1Error(f"Expected access to the Gemini API and its model, found {_said(error)}.") from error


def _passes(error: Failure) -> bool:
    return not isinstance(error, APIError) or error.code in _BUSY or error.code >= _SERVER_ERRORS


def _wait(error: Failure, attempt: int, params: Gemini) -> float:
    """Seconds until the next attempt."""
    asked = _asked_wait(error)
    if asked > params.max_wait_s:
        raise R1Error(
            f"Expected a wait of at most {params.max_wait_s:g} s (synthesize.gemini.max_wait_s), found that the Gemini "
            f"API asks for {asked:.0f} s: {_said(error)}; run again then, what was answered is in the ledger."
        ) from error
    own = params.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
    return max(asked, min(float(own), params.max_wait_s))


def _said(error: Failure) -> str:
    return f"{error.code} {error.message}" if isinstance(error, APIError) else f"{type(error).__name__} {error}".strip()


def _asked_wait(error: Failure) -> float:
    """Seconds that the service asks for: in `Retry-After`, a number or a date, or in the body's RetryInfo; else 0."""
    if not isinstance(error, APIError):
        return 0.0
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    value = headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return _retry_delay(error.details)


def _retry_delay(body: Any) -> float:
    """`{"error": {"details": [{"@type": RetryInfo, "retryDelay": "34.5s"}]}}`, what the API sends with most 429s."""
    fault = body.get("error") if isinstance(body, dict) else None
    details = fault.get("details") if isinstance(fault, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _RETRY_INFO:
            seconds = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay")))
            return float(seconds[1]) if seconds else 0.0
    return 0.0
