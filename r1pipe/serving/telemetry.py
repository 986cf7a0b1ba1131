"""What a server tells of itself: Prometheus metrics beside BentoML's own at `/metrics`, and logs of one JSON object a line.

`prometheus_client` reads `PROMETHEUS_MULTIPROC_DIR` when it is imported; `bentoml serve` sets it before it loads a service.
"""

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter, Histogram

STEP_SECONDS = Histogram(
    "r1_step_seconds",
    "Seconds of each step of an answer.",
    ["step"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
COMPLETION_TOKENS = Counter("r1_completion_tokens", "Tokens that the model has said.", ["task"])
BATCH_SIZE = Histogram(
    "r1_batch_size", "Questions that were answered together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
SCENE_CACHE = Counter("r1_scene_cache", "Uploaded scans by whether they were encoded already.", ["result"])
REFUSED = Counter("r1_refused", "Questions that were not answered.", ["reason"])

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered; every line of the log carries it."""


def observe_steps(seconds: Mapping[str, float]) -> None:
    """Count the seconds of these steps."""
    for step, value in seconds.items():
        STEP_SECONDS.labels(step).observe(value)


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, request id, and what `extra={"fields": …}` adds."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        line |= record.__dict__.get("fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_json(level: int = logging.INFO) -> None:
    """Write what this package logs to the standard error, a JSON object a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("r1pipe")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
