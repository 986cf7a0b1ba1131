"""Gemini's batch jobs: many requests at a part of the price, answered within a day, straight into the ledger.

A job stands in the ledger, under a name of ours, before it is submitted; the service keeps that name. A run that was killed
in between finds the job by it, and so no job is submitted twice.
"""

import asyncio
import logging
import uuid
from collections.abc import Iterable
from functools import partial

from google.genai import types

from r1pipe.errors import R1Error
from r1pipe.params.chains import Gemini
from r1pipe.synthesis.answer import read
from r1pipe.synthesis.ledger import Entry, Ledger
from r1pipe.synthesis.money import Till, dollars
from r1pipe.synthesis.request import Request
from r1pipe.synthesis.retry import patiently
from r1pipe.synthesis.service import Service, config_of, contents_of

logger = logging.getLogger(__name__)

_MAX_BYTES = 16_000_000
"""Of a job's requests; the service takes 20 MB inline."""

_OVERHEAD_BYTES = 1_000
_BASE64 = 4 / 3

_READABLE = (types.JobState.JOB_STATE_SUCCEEDED, types.JobState.JOB_STATE_PARTIALLY_SUCCEEDED)
_LOST = (types.JobState.JOB_STATE_FAILED, types.JobState.JOB_STATE_CANCELLED, types.JobState.JOB_STATE_EXPIRED)


class Batches:
    """Has requests answered in the ledger before a teacher asks them."""

    def __init__(self, service: Service, ledger: Ledger, till: Till, params: Gemini) -> None:
        """Share a teacher's connection, ledger and budget.

        Raises:
            R1Error: on Vertex AI, whose batches go through Cloud Storage.
        """
        if service.vertex:
            raise R1Error(
                "Expected the Gemini API for batch jobs (GEMINI_API_KEY), found Vertex AI, which takes them from Cloud "
                "Storage; set synthesize.gemini.batch to false."
            )
        self._ledger, self._till, self._params = ledger, till, params
        self._jobs = service.client.aio.batches

    async def answer(self, requests: Iterable[Request]) -> None:
        """Return when every request that a job can answer has its reply in the ledger.

        What a job leaves out stays unanswered; the teacher asks it one by one.

        Raises:
            R1Error: if a job fails, or the budget does not allow one.
        """
        await self._find_submitted()
        group: dict[str, Request] = {}
        size = 0.0
        for request in requests:
            if request.key in group or self._ledger.get(request.key) or self._ledger.in_job(request.key):
                continue
            if group and size + _bytes(request) > _MAX_BYTES:
                await self._submit(list(group.values()))
                group, size = {}, 0.0
            group[request.key] = request
            size += _bytes(request)
        if group:
            await self._submit(list(group.values()))
        await self._collect()

    async def _find_submitted(self) -> None:
        """Learn the service's names of jobs that an earlier run planned; forget those that it did not submit."""
        for job in self._ledger.jobs():
            if job.name is None:
                name = await patiently(partial(self._find, job.label), self._params)
                if name is None:
                    await self._ledger.forgotten(job.label)
                else:
                    await self._ledger.submitted(job.label, name)

    async def _find(self, label: str) -> str | None:
        async for job in await self._jobs.list():
            if job.display_name == label:
                return job.name
        return None

    async def _submit(self, requests: list[Request]) -> None:
        label = f"r1pipe-{uuid.uuid4().hex}"
        most = [self._till.reserve(request, self._ledger.spent, batch=True) for request in requests]
        await self._ledger.planned(label, list(zip(requests, most, strict=True)))
        self._till.release(sum(most))
        attempts = 0

        async def create() -> str | None:
            nonlocal attempts
            attempts += 1
            # An attempt that seemed to fail may have made the job.
            found = await self._find(label) if attempts > 1 else None
            return found or await self._create(label, requests)

        name = await patiently(create, self._params)
        if name is None:
            raise R1Error(f"Expected a name for the batch job {label}, found none in the Gemini API's response.")
        await self._ledger.submitted(label, name)
        logger.info("Gemini: batch job %s of %d requests is submitted", name, len(requests))

    async def _create(self, label: str, requests: list[Request]) -> str | None:
        source = [
            types.InlinedRequest(contents=contents_of(r), config=config_of(r), metadata={"key": r.key})
            for r in sorted(requests, key=lambda r: r.key)
        ]
        config = types.CreateBatchJobConfig(display_name=label)
        return (await self._jobs.create(model=self._params.model, src=source, config=config)).name

    async def _collect(self) -> None:
        """Read every job, the ones of earlier runs included, when it is done."""
        while jobs := self._ledger.jobs():
            for label, name in jobs:
                assert name is not None, "every job that is not forgotten was submitted"
                job = await patiently(partial(self._jobs.get, name=name), self._params)
                if job.state in _LOST:
                    await self._ledger.forgotten(label)
                    raise R1Error(
                        f"Expected the batch job {name} to succeed, found {job.state}: {job.error and job.error.message}; "
                        "its requests are free to be asked again."
                    )
                if job.state in _READABLE:
                    await self._read(label, job)
            if self._ledger.jobs():
                await asyncio.sleep(self._params.batch_poll_s)

    async def _read(self, label: str, job: types.BatchJob) -> None:
        keys = self._ledger.job_keys(label)
        responses = (job.dest and job.dest.inlined_responses) or []
        if len(responses) != len(keys):
            raise R1Error(f"Expected {len(keys)} responses in the batch job {job.name}, found {len(responses)}.")
        entries = []
        # In the order of the requests, which is that of their keys; where the service repeats the key, that counts.
        for key, response in zip(keys, responses, strict=True):
            if response.response is not None:
                body = response.response.model_dump_json(by_alias=True, exclude_none=True)
                reply = read(body, max_output_tokens=self._params.max_output_tokens)
                cost = dollars(reply, self._params, batch=True)
                entries.append(Entry((response.metadata or {}).get("key", key), reply, cost))
        await self._ledger.collected(label, entries)
        logger.info("Gemini: batch job %s answered %d of %d requests", job.name, len(entries), len(keys))


def _bytes(request: Request) -> float:
    pictures = sum(len(picture.png) for picture in request.prompt.pictures)
    return len(request.record.encode()) + _BASE64 * pictures + _OVERHEAD_BYTES
