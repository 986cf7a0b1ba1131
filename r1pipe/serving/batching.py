"""Adaptive batching: the questions that wait while the model is busy are answered together when it is free.

No window is waited for: a lone question starts at once, and under load the batch grows to what came in during the last
one. BentoML's own dispatcher serves `@bentoml.api` methods only, not a mounted application, gives one answer a call (no
streaming), and learns its window from ten calls of one; its interface is private.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import NamedTuple, Protocol

from r1pipe.errors import R1Error
from r1pipe.models.r1.hearing import Completion, Grown, Whole
from r1pipe.models.r1.prompts import Request
from r1pipe.serving import telemetry
from r1pipe.serving.answer import BusyError


class Said(NamedTuple):
    """A completion, and how long it took."""

    completion: Completion
    waited: float
    """Seconds until the model was free."""

    answered: float
    """Seconds from then on."""


class Generate(Protocol):
    """One batch of completions, each told when it is whole."""

    def __call__(self, requests: Sequence[Request], *, whole: Whole, grown: Mapping[int, Grown]) -> None:
        """See `r1pipe.models.r1.answering.Answerer.answer`."""
        ...


class _Job(NamedTuple):
    request: Request
    grown: Grown | None
    future: Future[Said]
    asked: float


class Batcher:
    """Takes questions from any thread, and puts them to the model from one."""

    def __init__(self, generate: Generate, *, max_batch_size: int, max_waiting: int) -> None:
        """Batches of at most `max_batch_size`; of further questions at most `max_waiting` are kept."""
        self._generate = generate
        self.max_batch_size, self.max_waiting = max_batch_size, max_waiting
        self._waiting: deque[_Job] = deque()
        self._lock = Lock()
        self._seconds_a_batch = 0.0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="r1-batches")

    def submit(self, request: Request, grown: Grown | None = None) -> Future[Said]:
        """Ask; a future that is cancelled before its turn costs the model nothing.

        Args:
            request: the question.
            grown: told the text as it grows, from the model's thread.

        Raises:
            BusyError: if too many wait already.
        """
        job = _Job(request, grown, Future(), perf_counter())
        with self._lock:
            if len(self._waiting) >= self.max_waiting:
                batches = -(-len(self._waiting) // self.max_batch_size)
                raise BusyError(
                    f"Expected at most {self.max_waiting} questions to wait, found as many waiting; ask again later.",
                    retry_after=max(1, round(batches * self._seconds_a_batch)),
                )
            self._waiting.append(job)
        self._pool.submit(self._next_batch)
        return job.future

    def close(self) -> None:
        """Answer what waits, then stop."""
        self._pool.shutdown(wait=True)

    def _next_batch(self) -> None:
        """Answer what waits; nothing where an earlier batch took it along."""
        with self._lock:
            count = min(len(self._waiting), self.max_batch_size)
            taken = [self._waiting.popleft() for _ in range(count)]
        jobs = [job for job in taken if job.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        start = perf_counter()
        telemetry.BATCH_SIZE.observe(len(jobs))
        self._answer(jobs, start)
        self._seconds_a_batch = perf_counter() - start

    def _answer(self, jobs: Sequence[_Job], start: float) -> None:
        try:
            self._generate(
                [job.request for job in jobs],
                whole=lambda row, completion: _resolve(jobs[row], completion, start),
                grown={row: job.grown for row, job in enumerate(jobs) if job.grown is not None},
            )
        except R1Error as error:
            # A room may be forgotten while its question waits: its neighbours are not to suffer.
            if len(jobs) == 1:
                _fail(jobs, error)
                return
            for job in jobs:
                if not job.future.done():
                    self._answer([job], start)
        except BaseException as error:
            _fail(jobs, error)
            raise


def _resolve(job: _Job, completion: Completion, start: float) -> None:
    job.future.set_result(Said(completion, start - job.asked, perf_counter() - start))


def _fail(jobs: Sequence[_Job], error: BaseException) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)
