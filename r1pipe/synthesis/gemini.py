"""Gemini as a teacher: bounded concurrency, patient retries, and a ledger so that nothing is asked twice."""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from google import genai
from google.genai import types
from google.genai.errors import APIError

from r1pipe.datasets import Sample
from r1pipe.errors import MissingError, R1Error
from r1pipe.params import Gemini
from r1pipe.response import parse
from r1pipe.scenes import Scene
from r1pipe.synthesis.ledger import Ledger, Reply, key
from r1pipe.synthesis.prompts import first_prompt, second_prompt
from r1pipe.synthesis.teacher import Refusal, Thought

logger = logging.getLogger(__name__)

KEY_VARIABLE = "GEMINI_API_KEY"
_ATTEMPTS = 8
_MAX_WAIT_S = 120.0
_TIMEOUT_S = 300.0
_TOO_MANY, _SERVER_ERRORS = 429, 500


class GeminiTeacher:
    """Asks for reasoning and answer, then, from the reasoning alone, for the answer again."""

    def __init__(self, params: Gemini, *, concurrency: int, backoff_s: float = 1.0) -> None:
        """Open the ledger.

        Args:
            params: model and settings.
            concurrency: requests in flight at once, at most.
            backoff_s: the first wait after a refused request; it doubles from one to the next.

        Raises:
            MissingError: if the environment holds no key.
        """
        api_key = os.environ.get(KEY_VARIABLE)
        if not api_key:
            raise MissingError(f"Expected an API key in the environment variable {KEY_VARIABLE}, found none.")
        self.name = f"gemini/{params.model}"
        self._params = params
        self._slots = asyncio.Semaphore(concurrency)
        self._backoff_s = backoff_s
        self._ledger = Ledger(params.ledger)
        self._pending: dict[str, asyncio.Task[Reply]] = {}
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S)
        options = types.HttpOptions(base_url=params.base_url, httpx_async_client=self._http)
        self._client = genai.Client(api_key=api_key, vertexai=False, http_options=options)

    async def think(self, sample: Sample, scene: Scene) -> Thought | Refusal:
        """Reason about the question.

        Raises:
            R1Error: if the service refuses the request itself, or stays away after eight attempts.
        """
        reply = await self._ask(first_prompt(sample, scene))
        if reply.text is None:
            return _refusal(reply)
        response = parse(reply.text, think=True)
        if response is None:
            return Thought(reply.text, None)
        second = await self._ask(second_prompt(sample, response.thinking))
        return _refusal(second) if second.text is None else Thought(reply.text, second.text.strip())

    async def close(self) -> None:
        """Close the connections and the ledger; what is still under way is given up."""
        for task in self._pending.values():
            task.cancel()
        await self._http.aclose()
        self._ledger.close()

    async def _ask(self, prompt: str) -> Reply:
        """The reply to a prompt: from the ledger, from the same request under way, or from the service."""
        params = self._params
        settings = params.model_dump(include={"model", "temperature", "thinking_budget", "max_output_tokens"})
        request = settings | {"prompt": prompt}
        kept = self._ledger.get(request)
        if kept is not None:
            return kept
        name = key(request)
        if name not in self._pending:
            self._pending[name] = asyncio.create_task(self._pay(name, request))
        # Shielded: one waiter that gives up must not take the reply from the others.
        return await asyncio.shield(self._pending[name])

    async def _pay(self, name: str, request: dict[str, Any]) -> Reply:
        try:
            async with self._slots:
                response = await patiently(lambda: self._generate(request["prompt"]), self._backoff_s)
            reply = _read(response)
            self._ledger.put(request, reply)
            return reply
        finally:
            del self._pending[name]

    async def _generate(self, prompt: str) -> types.GenerateContentResponse:
        params = self._params
        config = types.GenerateContentConfig(
            temperature=params.temperature,
            max_output_tokens=params.max_output_tokens,
            thinking_config=types.ThinkingConfig(thinking_budget=params.thinking_budget),
        )
        return await self._client.aio.models.generate_content(model=params.model, contents=prompt, config=config)


async def patiently(
    request: Callable[[], Awaitable[types.GenerateContentResponse]], backoff_s: float
) -> types.GenerateContentResponse:
    """The response, after waiting where the service is busy: exponential back-off with jitter, or as long as it says.

    Raises:
        R1Error: if the service refuses for a reason that waiting does not cure, or after the last attempt.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await request()
        except (APIError, httpx.TransportError) as error:
            if not _passes(error) or attempt == _ATTEMPTS:
                raise R1Error(
                    f"Expected an answer from the Gemini API, found {_said(error)} at attempt {attempt} of {_ATTEMPTS}; "
                    "what was answered so far is in the ledger, the next run goes on from there."
                ) from error
            wait = max(_asked_wait(error), backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            logger.info("Gemini: %s, next attempt in %.1f s", _said(error), wait)
            await asyncio.sleep(min(wait, _MAX_WAIT_S))
    raise AssertionError


def _passes(error: APIError | httpx.TransportError) -> bool:
    return not isinstance(error, APIError) or error.code == _TOO_MANY or error.code >= _SERVER_ERRORS


def _said(error: APIError | httpx.TransportError) -> str:
    return f"{error.code} {error.message}" if isinstance(error, APIError) else f"{type(error).__name__} {error}"


def _asked_wait(error: APIError | httpx.TransportError) -> float:
    """Seconds that the service asks for in `Retry-After`, a number or a date; 0 where it says nothing."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _read(response: types.GenerateContentResponse) -> Reply:
    """The text of a response, or why it has none."""
    usage = response.usage_metadata
    spent = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0) if usage else 0
    refusal = _why_not(response)
    text = None if refusal is not None else response.text
    return Reply(text, refusal, (usage.prompt_token_count or 0) if usage else 0, spent)


def _why_not(response: types.GenerateContentResponse) -> str | None:
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        return f"blocked: {feedback.block_reason.value}"
    if not response.candidates:
        return "empty: no candidate"
    finish = response.candidates[0].finish_reason
    if finish is types.FinishReason.MAX_TOKENS:
        return "truncated: MAX_TOKENS"
    if finish not in (None, types.FinishReason.STOP):
        return f"blocked: {finish.value}"
    return None if (response.text or "").strip() else "empty: no text"


def _refusal(reply: Reply) -> Refusal:
    reason, _, detail = (reply.refusal or "empty: no text").partition(": ")
    return Refusal(reason, detail)
