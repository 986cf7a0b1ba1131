"""A server that speaks Gemini's REST API over HTTP, well or badly, and counts what it would charge for.

`python tests/gemini_server.py SECONDS` serves good answers after so long, prints its address, and, when its standard input
ends, the number of requests and the seconds from the first to the last.
"""

import asyncio
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter, deque
from typing import NamedTuple

THOUGHT = "The table is <obj_003>. It is brown. So the answer is about <obj_003>."
GOOD_TEXT = f"<think>{THOUGHT}</think><answer>brown</answer>"
PASSING = ("429", "500", "503", "hang", "close")
"""Faults that are gone at the next attempt."""

LASTING = ("malformed", "blocked", "empty", "nested", "missing", "huge")
"""Faults of an answer that is charged for."""


class Asked(NamedTuple):
    path: str
    api_key: str | None
    body: dict
    digest: str
    attempt: int

    @property
    def text(self):
        return self.body["contents"][0]["parts"][-1]["text"]

    @property
    def second(self):
        return "Reasoning:" in self.text


class Sent(NamedTuple):
    status: int | str = 200
    """Or `hang`, `close`."""

    body: bytes = b"{}"
    headers: dict = {}  # noqa: RUF012


def spoken(text, finish="STOP"):
    content = {
        "role": "model",
        "parts": [{"text": "hm", "thought": True}, *([{"text": text}] if text is not None else [])],
    }
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 17}
    return sent({"candidates": [{"content": content, "finishReason": finish}], "usageMetadata": usage})


def sent(body, status=200, **headers):
    return Sent(status, json.dumps(body).encode(), headers)


def error(code, message="no", details=(), **headers):
    return sent(
        {"error": {"code": code, "message": message, "status": "NO", "details": list(details)}}, code, **headers
    )


def good(asked):
    return spoken("brown") if asked.second else spoken(GOOD_TEXT)


FAULTY = {
    "429": error(429, **{"Retry-After": "0.05"}),
    "500": error(500),
    "503": error(503),
    "hang": Sent("hang"),
    "close": Sent("close"),
    "malformed": Sent(200, b'{"candidates": [{"content": '),
    "blocked": sent({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 10}}),
    "empty": sent({"candidates": [], "usageMetadata": {"promptTokenCount": 10}}),
    "nested": spoken("<think>a <think>b</think></think><answer>brown</answer>"),
    "missing": spoken("It is brown."),
    "huge": spoken(f"<think>{'word ' * 200_000}</think><answer>brown</answer>"),
}


def faulty(rate, seed):
    """Good answers, and all kinds of faults at the rate: the same for the same request and attempt."""

    def answer(asked):
        once, now = random.Random(f"{seed} {asked.digest}"), random.Random(f"{seed} {asked.digest} {asked.attempt}")
        if now.random() < rate * len(PASSING) / len(FAULTY):
            return FAULTY[now.choice(PASSING)]
        return FAULTY[once.choice(LASTING)] if once.random() < rate * len(LASTING) / len(FAULTY) else good(asked)

    return answer


class GeminiServer:
    """In a thread of its own; `answer` decides about each request, `jobs` are batch jobs by the service's name."""

    def __init__(self, answer=good, latency_s=0.0):
        self.answer, self.latency_s = answer, latency_s
        self.asked, self.attempts, self.charged = [], Counter(), Counter()
        self.jobs, self.job_faults, self.job_state, self.unfinished_looks = {}, [], "BATCH_STATE_SUCCEEDED", 1
        self._loop = asyncio.new_event_loop()
        self._connections = set()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self):
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self):
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0, limit=2**24)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._up.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connect(self, reader, writer):
        self._connections.add(asyncio.current_task())
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went, or the server ends
        finally:
            self._connections.discard(asyncio.current_task())
            writer.close()

    async def _exchange(self, reader, writer):
        """One request and its answer; whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in head.split("\r\n")[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        await asyncio.sleep(self.latency_s)
        answer = self._decide(method, path, headers.get("x-goog-api-key"), body)
        if answer.status == "hang":
            await asyncio.sleep(3600)
        if answer.status == "close":
            return False
        lines = {"content-type": "application/json", "content-length": len(answer.body), **answer.headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{text}\r\n".encode() + answer.body)
        await writer.drain()
        return True

    def _decide(self, method, path, api_key, body):
        if method == "GET":
            return self._look(path)
        parsed = json.loads(body)
        digest = hashlib.sha256(body).hexdigest()
        self.attempts[digest] += 1
        asked = Asked(path, api_key, parsed, digest, self.attempts[digest])
        self.asked.append(asked)
        if path.endswith(":batchGenerateContent"):
            return self._submit(asked)
        answer = self.answer(asked)
        self.charged[digest] += answer.status == 200
        return answer

    def _submit(self, asked):
        """A job, made even where `job_faults` has the client not hear of it."""
        fault = self.job_faults.pop(0) if self.job_faults else None
        if fault is not None and fault.status != "close":
            return fault
        name = f"batches/{len(self.jobs)}"
        self.jobs[name] = {"batch": asked.body["batch"], "looks": 0}
        return fault or sent(self._shown(name))

    def _look(self, path):
        name = path.split("?")[0].split("/", 2)[2]
        if name == "batches":
            return sent({"operations": [self._shown(each) for each in self.jobs]})
        self.jobs[name]["looks"] += 1
        return sent(self._shown(name))

    def _shown(self, name):
        job = self.jobs[name]
        shown = {"displayName": job["batch"]["displayName"], "state": "BATCH_STATE_RUNNING"}
        if job["looks"] > self.unfinished_looks:
            requests = job["batch"]["inputConfig"]["requests"]["requests"]
            shown |= {"state": self.job_state}
            shown |= {"output": {"inlinedResponses": {"inlinedResponses": [self._inlined(r) for r in requests]}}}
        return {"name": name, "metadata": shown}

    def _inlined(self, entry):
        digest = hashlib.sha256(json.dumps(entry["request"]).encode()).hexdigest()
        answer = self.answer(Asked("batch", None, entry["request"], digest, 1))
        if answer.status == 200:
            return {"response": json.loads(answer.body), "metadata": entry["metadata"]}
        return {"error": {"code": answer.status, "message": "no"}, "metadata": entry["metadata"]}


def main():
    times = []

    def timed(asked):
        times.append(time.monotonic())
        return good(asked)

    with GeminiServer(timed, latency_s=float(sys.argv[1])) as server:
        server.asked = deque(maxlen=0)
        print(server.url, flush=True)  # noqa: T201
        sys.stdin.read()
        print(len(times), times[-1] - times[0])  # noqa: T201


if __name__ == "__main__":
    main()
