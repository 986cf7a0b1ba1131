"""Gemini as a teacher: asks for reasoning and answer, then, from the reasoning alone, for the answer again.

Paces, retries and pays; every request goes through the ledger, so that nothing is asked twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from r1pipe.datasets import Sample
from r1pipe.errors import R1Error
from r1pipe.params.chains import Gemini
from r1pipe.response import parse
from r1pipe.scenes import Scene
from r1pipe.synthesis.batch import Batches
from r1pipe.synthesis.ledger import Ledger
from r1pipe.synthesis.limiter import TokenBucket
from r1pipe.synthesis.money import Till, dollars
from r1pipe.synthesis.prompts import Prompts, prompt_version
from r1pipe.synthesis.request import Reply, Request
from r1pipe.synthesis.retry import UnansweredError, patiently
from r1pipe.synthesis.service import Service
from r1pipe.synthesis.teacher import Refusal, SceneOf, Thought

logger = logging.getLogger(__name__)

_FAILURES_IN_A_ROW = 20
"""Requests without an answer, none answered between them, after which the service is taken to be away."""


class GeminiTeacher:
    """Answers are shared: two samples with one prompt make one request."""

    def __init__(self, params: Gemini, prompts: Prompts, *, concurrency: int) -> None:
        """Connect, and open the ledger.

        Args:
            params: model and settings.
            prompts: who writes what is asked.
            concurrency: requests in flight at once, at most.

        Raises:
            MissingError: if the environment holds no key.
            R1Error: if another run uses the ledger.
        """
        self.name = f"gemini/{params.model}"
        self._params = params
        self._prompts = prompts
        self._service = Service(params, connections=concurrency)
        self._ledger = Ledger(params.ledger)
        self._till = Till(params)
        self._slots = asyncio.Semaphore(concurrency)
        self._bucket = TokenBucket(params.requests_per_second)
        self._pending: dict[str, asyncio.Task[Reply]] = {}
        self._sending: set[str] = set()
        self._closing = False
        self._answered = self._failed_in_a_row = 0
        self._start = time.monotonic()
        if lost := self._ledger.unanswered:
            logger.info("Gemini: %d requests of an earlier run were sent and their replies not read; asked again", lost)

    @property
    def status(self) -> str:
        """Money and rate, for a progress line."""
        rate = self._answered / (time.monotonic() - self._start)
        return f"${self._ledger.spent:.2f}, {rate:.1f} answers/s"

    async def prepare(self, samples: Callable[[], Iterable[Sample]], scene: SceneOf) -> None:
        """Have batch jobs answer all first requests, then all second ones, where `batch` is on.

        Raises:
            R1Error: if a job fails, or the budget does not allow one.
        """
        if self._params.batch:
            batches = Batches(self._service, self._ledger, self._till, self._params)
            await batches.answer(self._first(sample, scene) for sample in samples())
            seconds = (self._second(sample, scene) for sample in samples())
            await batches.answer(request for request in seconds if request is not None)

    def _first(self, sample: Sample, scene: SceneOf) -> Request:
        return Request.of(self._prompts.first(sample, scene(sample.scene_id)), self._params)

    def _second(self, sample: Sample, scene: SceneOf) -> Request | None:
        """The request that follows what the ledger holds; None where nothing does."""
        reply = self._ledger.get(self._first(sample, scene).key)
        prompt = self._prompts.follow_up(sample, reply.text) if reply is not None else None
        return None if prompt is None else Request.of(prompt, self._params)

    async def think(self, sample: Sample, scene: Scene) -> Thought | Refusal:
        """Reason about the question.

        Raises:
            R1Error: if the budget is used up, the service refuses every request, or it stays away.
        """
        reply = await self._ask(Request.of(self._prompts.first(sample, scene), self._params))
        if reply.text is None:
            return _refusal(reply)
        prompt = self._prompts.follow_up(sample, reply.text)
        if prompt is None:
            return Thought(reply.text, None, prompt=prompt_version(sample.task))
        second = await self._ask(Request.of(prompt, self._params))
        if second.text is None:
            return _refusal(second)
        return Thought(reply.text, _plain(second.text), prompt=prompt_version(sample.task))

    async def close(self) -> None:
        """Wait for answers that are on their way, for they are paid; then close connections and ledger."""
        self._closing = True
        tasks = dict(self._pending)
        for key, task in tasks.items():
            if key not in self._sending:
                task.cancel()
        if self._sending:
            logger.info("Gemini: waiting for %d answers that are on their way", len(self._sending))
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await self._service.close()
        await self._ledger.close()

    async def _ask(self, request: Request) -> Reply:
        """The reply: from the ledger, from the same request under way, or from the service."""
        kept = self._ledger.get(request.key)
        if kept is not None:
            return kept
        if request.key not in self._pending:
            task = asyncio.create_task(self._pay(request))
            # Its waiters may all have gone when it fails.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._pending[request.key] = task
        # Shielded: one waiter that gives up must not take the reply from the others.
        return await asyncio.shield(self._pending[request.key])

    async def _pay(self, request: Request) -> Reply:
        try:
            async with self._slots:
                reserved = self._till.reserve(request, self._ledger.spent)
                try:
                    reply = await patiently(lambda: self._send(request), self._params, given_up=lambda: self._closing)
                finally:
                    self._till.release(reserved)
        except UnansweredError as error:
            self._count_failure(error)
            return Reply(None, error.refusal)
        finally:
            del self._pending[request.key]
        return reply

    async def _send(self, request: Request) -> Reply:
        """One attempt, from its turn until the reply is on the disk."""
        await self._bucket.take()
        await self._ledger.sent(request)
        self._sending.add(request.key)
        try:
            reply = await self._service.generate(request)
            await self._ledger.answered(request.key, reply, dollars(reply, self._params, batch=False))
        finally:
            self._sending.discard(request.key)
        self._answered += 1
        self._failed_in_a_row = 0
        return reply

    def _count_failure(self, error: UnansweredError) -> None:
        """Stop where one request after the other goes without an answer, or the very first in the ledger does."""
        self._failed_in_a_row += 1
        reached = self._answered > 0 or self._ledger.spent > 0
        if not reached or self._failed_in_a_row >= _FAILURES_IN_A_ROW:
            raise R1Error(
                f"Expected an answer from the Gemini API, found {error.refusal}; {self._failed_in_a_row} requests in a row went "
                f"without one. What was answered so far is in the ledger, the next run goes on from there."
            ) from error


def _refusal(reply: Reply) -> Refusal:
    """Why a reply has no text."""
    reason, _, detail = (reply.refusal or "empty: no text").partition(": ")
    return Refusal(reason, detail)


def _plain(answer: str) -> str:
    """An answer without the tags that it was asked not to have."""
    response = parse(answer, think=False)
    return answer.strip() if response is None else response.answer
