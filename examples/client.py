"""A typed client of a running server: `python -m examples.client room0504_00 "what color is the chair?"`.

`R1PIPE_URL` says where the server is (`http://localhost:3000` where it is not set), `R1PIPE_API_TOKEN` what it wants to hear.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from r1pipe.serving.answer import Answer, Ask, Refusal


class Client:
    """Asks a server; what it refuses is raised with its sentence."""

    def __init__(self, http: httpx.Client) -> None:
        """Ask with this client of the server's address."""
        self._http = http

    @classmethod
    def connect(cls, url: str, token: str | None = None) -> "Client":
        """A client of the server at `url`."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return cls(httpx.Client(base_url=url, headers=headers, timeout=120))

    def ask(self, ask: Ask) -> Answer:
        """The answer to a question about a known room.

        Raises:
            RuntimeError: if the server refuses.
        """
        return _answer(self._http.post("/answer", json=ask.model_dump(mode="json")))

    def ask_scan(self, scan: Path, question: str) -> Answer:
        """The answer to a question about a scan: a file of `.ply`, `.npz`, `.glb` or `.obj`, zipped or not.

        Raises:
            RuntimeError: if the server refuses.
        """
        with scan.open("rb") as file:
            return _answer(self._http.post("/answer", files={"scene": (scan.name, file)}, data={"question": question}))

    def stream(self, ask: Ask) -> Iterator[str | Answer]:
        """Pieces of what the model says, and the answer at the end.

        Raises:
            RuntimeError: if the server refuses.
        """
        headers = {"accept": "text/event-stream"}
        with self._http.stream("POST", "/answer", json=ask.model_dump(mode="json"), headers=headers) as response:
            if response.is_error:
                response.read()
                _answer(response)
            name = ""
            for line in response.iter_lines():
                field, _, value = line.partition(": ")
                name = value if field == "event" else name
                if field == "data" and name == "error":
                    raise RuntimeError(Refusal.model_validate_json(value).detail)
                if field == "data":
                    yield json.loads(value)["text"] if name == "text" else Answer.model_validate_json(value)


def _answer(response: httpx.Response) -> Answer:
    if response.is_error:
        raise RuntimeError(Refusal.model_validate_json(response.text).detail)
    return Answer.model_validate_json(response.text)


def main(scene_id: str, question: str) -> None:
    """Write what the model says as it says it, then the boxes that it points at."""
    client = Client.connect(os.environ.get("R1PIPE_URL", "http://localhost:3000"), os.environ.get("R1PIPE_API_TOKEN"))
    for step in client.stream(Ask(scene_id=scene_id, question=question)):
        sys.stdout.write(f"\n{step.boxes}\n" if isinstance(step, Answer) else step)
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
