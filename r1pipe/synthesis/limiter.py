"""How often the service may be asked."""

import asyncio

_BURST_S = 0.1
"""Seconds' worth of requests that may be sent late at once: what the event loop's delays would otherwise lose."""


class TokenBucket:
    """Hands out tokens at a rate, in the order in which they are asked for.

    Each token has its own due time, one interval after the one before (the generic cell rate algorithm); a token that
    nobody waited for stays good for a tenth of a second.
    """

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1 / per_second
        self._slack_s = max(_BURST_S - self._interval_s, 0.0)
        self._due_s = 0.0

    async def take(self) -> None:
        """Return when the next token is due."""
        now = asyncio.get_running_loop().time()
        due = max(self._due_s, now - self._slack_s)
        self._due_s = due + self._interval_s
        if due > now:
            await asyncio.sleep(due - now)
