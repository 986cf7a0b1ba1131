"""What each stage took when it last ran here: seconds and memory, as a file and as a picture for the report.

Both differ from run to run, and every output of a stage must not: they are no outputs of DVC's, and the page links the picture
instead of holding it. DVC's cache knows no times: a stage whose outputs come from it was not run, and keeps the record of the
run before, with the moment at which that ended.
"""

import json
import resource
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from r1pipe.files import locked, read_json, write_text

RECORD = Path(".work/costs.json")
PICTURE = "costs.svg"
"""Beside the report."""


class Cost(TypedDict):
    """One stage's last complete run."""

    seconds: float
    peak_mib: int
    """Of the largest of its processes."""

    ended: str
    """UTC, ISO 8601."""


def read_costs() -> dict[str, Cost]:
    """By stage; empty where nothing has run."""
    return read_json(RECORD) if RECORD.is_file() else {}


def record(stage: str, seconds: float, folder: Path) -> None:
    """Note what this process took for a stage, and draw all stages anew into a folder."""
    RECORD.parent.mkdir(exist_ok=True)
    cost = Cost(seconds=round(seconds, 2), peak_mib=_peak_mib(), ended=datetime.now(UTC).isoformat(timespec="seconds"))
    with locked(RECORD.with_suffix(".lock")):  # independent stages may end at the same moment
        costs = read_costs()
        costs.pop(stage, None)
        costs[stage] = cost  # last: the order is that of the runs
        write_text(RECORD, json.dumps(costs, indent=2) + "\n")
        write_text(folder / PICTURE, draw(costs))


def _peak_mib() -> int:
    """Kernel's high-water mark of this process, or of the largest child that has ended."""
    # Not this process's ru_maxrss: it begins with what the program had that started it, DVC.
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(int(line.split()[1]), children) // 1024


_WIDTH, _ROW, _LEFT, _BARS = 460, 24, 86, 150
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#5d6470;font-variant-numeric:tabular-nums}.stage{fill:#1c1f24}rect{fill:#2f6fde}"
    "@media (prefers-color-scheme:dark){text{fill:#9aa3b0}.stage{fill:#e8eaed}rect{fill:#7aa7ff}}"
)


def draw(costs: Mapping[str, Cost]) -> str:
    """Bars of minutes as SVG, a row a stage in the order of their runs, with peak memory and the moment of the end."""
    longest = max([0.1, *(cost["seconds"] for cost in costs.values())])
    rows = [
        _row(_ROW * (number + 1), stage, cost, longest) for number, (stage, cost) in enumerate(costs.items(), start=1)
    ]
    heads = ((_LEFT + _BARS + 44, "min"), (_LEFT + _BARS + 114, "peak GiB"), (_WIDTH, "ended, UTC"))
    head = "".join(f'<text x="{x}" y="16" text-anchor="end">{text}</text>' for x, text in heads)
    height = _ROW * (len(costs) + 1) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
        f"<style>{_STYLE}</style>{head}{''.join(rows)}</svg>\n"
    )


def _row(base: int, stage: str, cost: Cost, longest: float) -> str:
    numbers = (
        (_LEFT + _BARS + 44, f"{cost['seconds'] / 60:.1f}"),
        (_LEFT + _BARS + 114, f"{cost['peak_mib'] / 1024:.1f}"),
        (_WIDTH, cost["ended"][5:16].replace("T", " ")),
    )
    bar = max(_BARS * cost["seconds"] / longest, 1)
    cells = "".join(f'<text x="{x}" y="{base}" text-anchor="end">{text}</text>' for x, text in numbers)
    return (
        f'<text class="stage" x="0" y="{base}">{stage}</text>'
        f'<rect x="{_LEFT}" y="{base - 11}" width="{bar:.1f}" height="12" rx="2"/>{cells}'
    )
