"""What a flow costs over plain `dvc repro` where nothing is to do, in a checkout that is up to date.

    python -m benchmarks.flows

Without PREFECT_API_URL Prefect starts a server of its own for each run, which is part of what is measured.
"""

import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from r1pipe.stages.runner import environment

RUNS = 3
BUDGET_S = 25.0
COMMANDS = {"dvc repro": ["dvc", "repro"], "python -m flows.reproduce": ["flows.reproduce"]}


class Cost(NamedTuple):
    """Of one run."""

    wall_s: float
    processor_s: float
    """Of the process and its children: what a busy machine cannot stretch."""


def cost(module: list[str]) -> Cost:
    """One run of a module as a process."""
    before, start = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-m", *module], check=True, capture_output=True, env=environment())
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return Cost(time.monotonic() - start, spent)


def main() -> None:
    """Print the table, alternating the commands so that both meet the same machine."""
    for module in COMMANDS.values():
        cost(module)  # what comes first compiles, and may make a database
    taken: dict[str, list[Cost]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, module in COMMANDS.items():
            taken[name].append(cost(module))
    print("| command | median s | least s | processor s |\n| --- | --- | --- | --- |")
    for name, costs in taken.items():
        walls, processors = ([row[i] for row in costs] for i in range(2))
        print(f"| `{name}` | {statistics.median(walls):.1f} | {min(walls):.1f} | {statistics.median(processors):.1f} |")
    repro, flow = (statistics.median(row.wall_s for row in costs) for costs in taken.values())
    print(
        f"\nThe flow takes {flow - repro:.1f} s more; budget {BUDGET_S:g} s: {'holds' if flow - repro <= BUDGET_S else 'MISSED'}."
    )


if __name__ == "__main__":
    main()
