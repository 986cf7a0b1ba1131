"""Every request and its reply, kept: nothing that was answered is asked, or paid, again, and a killed run goes on.

What holds, and what cannot: a request stands in the ledger before it is sent, and its reply is on the disk before anybody
reads it. After `kill -9` or a power cut, an answered request is never sent again. A request that was under way at that
moment may have been answered, and charged for, without anybody having read the answer; the Gemini API takes no key by which
a repeated request could be recognised, so it is sent again. There are at most `concurrency` of these a kill, and the ledger
names them: `attempts` counts how often each was sent. A batch job has a name of ours, by which it is found again: it is
never submitted twice.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from r1pipe.errors import DataError, R1Error
from r1pipe.files import try_lock
from r1pipe.synthesis.request import Reply, Request

_VERSION = 1
_SCHEMA = """
create table if not exists requests (
    key text primary key,
    model text not null,
    request text not null,       -- as JSON
    attempts integer not null,   -- times sent
    job text,                    -- the batch job that it is in
    text text,
    refusal text,
    prompt_tokens integer,       -- null: not answered
    output_tokens integer,
    dollars real                 -- what it cost; in a job, what it may cost
) without rowid;
create index if not exists requests_by_job on requests (job);
create table if not exists jobs (
    label text primary key,      -- ours; the service keeps it as the display name
    name text                    -- the service's; null: not known to be submitted
) without rowid;
"""
_SENT = """
insert into requests (key, model, request, attempts) values (?, ?, ?, 1)
on conflict (key) do update set attempts = attempts + 1
"""
_PLANNED = """
insert into requests (key, model, request, attempts, job, dollars) values (?, ?, ?, 1, ?, ?)
on conflict (key) do update set attempts = attempts + 1, job = excluded.job, dollars = excluded.dollars
"""
_ANSWERED = """
update requests set text = ?, refusal = ?, prompt_tokens = ?, output_tokens = ?, dollars = ?, job = null where key = ?
"""


Write = tuple[str, Sequence[Any]]
"""A statement and its values."""


class Usage(NamedTuple):
    """What a model's answered requests took."""

    requests: int
    prompt_tokens: int
    output_tokens: int


class Bill(NamedTuple):
    """What a model was paid for: every request that was answered, whatever became of it."""

    requests: int
    prompt_tokens: int
    output_tokens: int
    dollars: float


class Job(NamedTuple):
    """A batch job that was not read to its end."""

    label: str
    name: str | None
    """The service's; None where the run ended between planning and hearing that it was submitted."""


class Entry(NamedTuple):
    """A reply for the ledger."""

    key: str
    reply: Reply
    dollars: float


def _dissolve(label: str) -> tuple[Write, Write]:
    """Of a job there remains what its requests were answered."""
    freed = "update requests set job = null, dollars = null where job = ?"
    return (freed, (label,)), ("delete from jobs where label = ?", (label,))


class Ledger:
    """A SQLite file.

    Writes that come while another is on its way to the disk go there together, so that the disk's latency bounds none of the
    rates that a service allows.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file, for one run at a time.

        Raises:
            R1Error: if another run holds it.
            DataError: if it is no ledger of this version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = path.with_name(f"{path.name}.lock").open("w")
        if not try_lock(self._lock):
            self._lock.close()
            raise R1Error(f"Expected the ledger {path} to be free, found another run that uses it.")
        self._reader = _open(path)
        # Its own connection: a reader must not wait for a writer that waits for the disk.
        self._writer = _open(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._queue: list[tuple[Sequence[Write], asyncio.Future[None]]] = []
        self._flush: asyncio.Task[None] | None = None
        self._spent = self._sum()

    def get(self, key: str) -> Reply | None:
        """The reply to a request, if it was ever answered."""
        return get(self._reader, key)

    @property
    def spent(self) -> float:
        """Dollars, over all requests ever made; for a batch job that is not answered yet, the most it may cost."""
        return self._spent

    @property
    def unanswered(self) -> int:
        """Requests that were sent one by one and whose reply nobody read."""
        return int(self._one("select count(*) from requests where prompt_tokens is null and job is null"))

    async def sent(self, request: Request) -> None:
        """Keep that a request is about to be sent."""
        await self._write((_SENT, (request.key, request.model, request.record)))

    async def answered(self, key: str, reply: Reply, dollars: float) -> None:
        """Keep a reply."""
        self._spent += dollars
        await self._write((_ANSWERED, (*reply, dollars, key)))

    async def planned(self, label: str, requests: Sequence[tuple[Request, float]]) -> None:
        """Keep that a batch job is about to be submitted: its requests, and the dollars that each costs at most."""
        rows: list[Write] = [(_PLANNED, (r.key, r.model, r.record, label, most)) for r, most in requests]
        await self._write(*rows, ("insert into jobs (label) values (?)", (label,)))
        self._spent += sum(most for _, most in requests)

    async def submitted(self, label: str, name: str) -> None:
        """Keep the service's name of a job."""
        await self._write(("update jobs set name = ? where label = ?", (name, label)))

    async def collected(self, label: str, entries: Iterable[Entry]) -> None:
        """Keep what a job answered, all at once; what it left out is free to be asked again."""
        replies: list[Write] = [(_ANSWERED, (*reply, dollars, key)) for key, reply, dollars in entries]
        await self._write(*replies, *_dissolve(label))
        self._spent = self._sum()

    async def forgotten(self, label: str) -> None:
        """Free the requests of a job that answered none."""
        await self.collected(label, ())

    def jobs(self) -> list[Job]:
        """The jobs that are not finished."""
        return [Job(*row) for row in self._reader.execute("select label, name from jobs order by label")]

    def job_keys(self, label: str) -> list[str]:
        """The requests of a job, unanswered ones."""
        return [key for (key,) in self._reader.execute("select key from requests where job = ? order by key", (label,))]

    def in_job(self, key: str) -> bool:
        """Whether a request is in a job that is not finished."""
        return bool(self._one("select count(*) from requests where key = ? and job is not null", (key,)))

    async def close(self) -> None:
        """Write what is left, and let go of the file."""
        while self._flush is not None:
            await self._flush
        self._thread.shutdown()
        self._reader.close()
        self._writer.close()
        self._lock.close()

    def _sum(self) -> float:
        return float(self._one("select coalesce(sum(dollars), 0) from requests"))

    def _one(self, query: str, values: Sequence[Any] = ()) -> Any:
        return self._reader.execute(query, values).fetchone()[0]

    async def _write(self, *writes: Write) -> None:
        """Return when the statements are on the disk, all of them or none.

        Raises:
            R1Error: if the file cannot be written.
        """
        done = asyncio.get_running_loop().create_future()
        self._queue.append((writes, done))
        if self._flush is None:
            self._flush = asyncio.create_task(self._flush_all())
        await asyncio.shield(done)

    async def _flush_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                error = await loop.run_in_executor(
                    self._thread, self._commit, [w for writes, _ in batch for w in writes]
                )
                for _, done in batch:
                    done.set_result(None) if error is None else done.set_exception(R1Error(error))
        finally:
            self._flush = None

    def _commit(self, writes: Sequence[Write]) -> str | None:
        """Why the disk did not take them; None if it did."""
        try:
            with self._writer:
                for statement, values in writes:
                    self._writer.execute(statement, values)
        except sqlite3.Error as error:
            return f"Expected to write the ledger {self._path}, found: {error}."
        return None


class Peek:
    """A ledger's replies without a run: makes no file, holds up nobody."""

    def __init__(self, path: Path) -> None:
        self._connection = _open(path) if path.is_file() else None

    def get(self, key: str) -> Reply | None:
        """As `Ledger.get`."""
        return None if self._connection is None else get(self._connection, key)

    def usage(self, model: str) -> Usage:
        """What the model's answered requests took."""
        query = "select count(*), sum(prompt_tokens), sum(output_tokens) from requests where model = ? and output_tokens > 0"
        row = (0, 0, 0) if self._connection is None else self._connection.execute(query, (model,)).fetchone()
        return Usage(*(number or 0 for number in row))

    def bill(self, model: str) -> Bill:
        """What the model was paid for."""
        query = """
        select count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(dollars), 0.0)
        from requests where model = ? and prompt_tokens is not null
        """
        return (
            Bill(0, 0, 0, 0.0)
            if self._connection is None
            else Bill(*self._connection.execute(query, (model,)).fetchone())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()


def get(connection: sqlite3.Connection, key: str) -> Reply | None:
    """The reply to a request, if it was ever answered."""
    row = connection.execute(
        "select text, refusal, prompt_tokens, output_tokens from requests where key = ? and prompt_tokens is not null",
        (key,),
    ).fetchone()
    return None if row is None else Reply(*row)


def _open(path: Path) -> sqlite3.Connection:
    # The writer's connection is used by one other thread, and by that alone.
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        version = connection.execute("pragma user_version").fetchone()[0]
        known = version == _VERSION or not connection.execute("select count(*) from sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DataError(f"Expected a ledger, a SQLite file, at {path}, found: {error}.") from None
    if not known:
        connection.close()
        raise DataError(f"Expected a ledger of version {_VERSION} at {path}, found version {version}.")
    connection.executescript(_SCHEMA)
    connection.execute(f"pragma user_version = {_VERSION}")
    connection.commit()
    return connection
