"""The plain training loop of the small encoders: AdamW, a warm-up, a cosine to zero; the same bytes for the same seed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import cos, pi

import numpy as np
import torch
from torch import nn

from r1pipe.progress import track

Log = Callable[[int, dict[str, float]], None]
"""Takes a step and its numbers by name."""

WARMUP = 0.05
"""Share of the steps over which the learning rate rises."""

LOG_EVERY = 10


@contextmanager
def seeded(seed: int) -> Iterator[np.random.Generator]:
    """Torch's generator seeded for a while, and put back after; gives a numpy generator for the batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield np.random.default_rng(seed)


def fit(
    modules: Iterable[nn.Module],
    loss: Callable[[], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    log: Log,
    description: str,
) -> None:
    """Minimise `loss`, which draws its own batch, over the parameters of the modules; leaves them in evaluation mode."""
    models = nn.ModuleList(modules).train()
    optimizer = torch.optim.AdamW(models.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    recent: list[float] = []
    for step in track(range(1, steps + 1), description):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(value.item())
        if step % LOG_EVERY == 0 or step == steps:
            log(step, {"loss": sum(recent) / len(recent)})
            recent.clear()
    models.eval()


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor at a step."""
    warmup = max(1, int(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + cos(pi * (step - warmup) / max(1, steps - warmup)))
