"""Every request and its response, kept: nothing is asked, or paid, twice, and a killed run goes on."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

_SCHEMA = """
create table if not exists ledger (
    key text primary key, request text not null, text text, refusal text, prompt_tokens integer, output_tokens integer
) without rowid
"""


class Reply(NamedTuple):
    """What came back: a text, or why there is none."""

    text: str | None
    refusal: str | None
    """`blocked`, `truncated`, `empty`, with what the service said after a colon."""

    prompt_tokens: int
    output_tokens: int
    """Of the text and of the service's own thinking: both are paid."""


class Ledger:
    """A SQLite file; each reply is on the disk before `put` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute(_SCHEMA)

    def get(self, request: dict[str, Any]) -> Reply | None:
        """The reply to this very request, if it was ever made."""
        row = self._connection.execute(
            "select text, refusal, prompt_tokens, output_tokens from ledger where key = ?", (key(request),)
        ).fetchone()
        return None if row is None else Reply(*row)

    def put(self, request: dict[str, Any], reply: Reply) -> None:
        """Keep a reply."""
        with self._connection:
            self._connection.execute(
                "insert or replace into ledger values (?, ?, ?, ?, ?, ?)",
                (key(request), json.dumps(request, sort_keys=True), *reply),
            )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def key(request: dict[str, Any]) -> str:
    """The SHA-256 of a request: model, prompt and every setting that changes the reply."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
