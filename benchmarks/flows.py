"""What a flow costs over plain `dvc repro` where nothing is to do, in a checkout that is up to date.

    python -m benchmarks.flows

Without PREFECT_API_URL Prefect starts a server of its own for each run, which is part of what is measured.
"""

import statistics
import subprocess
import sys
import time

from r1pipe.stages.runner import environment

RUNS = 3
BUDGET_S = 25.0
COMMANDS = {"dvc repro": ["dvc", "repro"], "python -m flows.reproduce": ["flows.reproduce"]}


def seconds(module: list[str]) -> float:
    """One run of a module as a process."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", *module], check=True, capture_output=True, env=environment())
    return time.monotonic() - start


def main() -> None:
    """Print the table, alternating the commands so that both meet the same machine."""
    for module in COMMANDS.values():
        seconds(module)  # what comes first compiles, and may make a database
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, module in COMMANDS.items():
            taken[name].append(seconds(module))
    print("| command | median s | least s |\n| --- | --- | --- |")
    for name, times in taken.items():
        print(f"| `{name}` | {statistics.median(times):.1f} | {min(times):.1f} |")
    repro, flow = (statistics.median(times) for times in taken.values())
    print(
        f"\nThe flow takes {flow - repro:.1f} s more; budget {BUDGET_S:g} s: {'holds' if flow - repro <= BUDGET_S else 'MISSED'}."
    )


if __name__ == "__main__":
    main()
