"""Two kinds of chart as inline SVG: courses over steps, and values with their intervals.

Colours are CSS variables of the page (`--line-0` ...), so that the charts follow its light and dark themes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from r1pipe.evaluation.series import Series

WIDTH, HEIGHT = 480, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 26
ROW = 26
"""Height of a row of an interval chart."""
LETTER = 7
"""Mean width of a letter of its labels."""


class Bar(NamedTuple):
    """A value with its interval."""

    label: str
    value: float
    low: float
    high: float
    colour: str
    """A CSS colour."""


class Scale(NamedTuple):
    """From data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover a range."""
    span = (high - low) or abs(high) or 1.0
    rough = span / count
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil((high if high > low else low + span) / step - 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]


def line_chart(courses: Mapping[str, Series], title: str) -> Markup:
    """Courses over steps: raw values faint, their trailing mean strong, one colour each."""
    values = [value for series in courses.values() for value in series.values if math.isfinite(value)]
    steps = [step for series in courses.values() for step in series.steps]
    marks_y, marks_x = ticks(min(values), max(values)), ticks(min(steps), max(steps))
    x = Scale(marks_x[0], max(steps), LEFT, WIDTH - RIGHT)
    y = Scale(marks_y[0], marks_y[-1], HEIGHT - BOTTOM, TOP)
    parts = [_rule(LEFT, WIDTH - RIGHT, y.at(mark), mark) for mark in marks_y]
    parts += [_text(x.at(mark), HEIGHT - 8, mark, "middle") for mark in marks_x if mark <= x.high]
    for number, series in enumerate(courses.values()):
        if series.window > 1:
            parts.append(_path(series, x, y, number, "raw"))
        parts.append(_path(series.smooth(), x, y, number, "course"))
    return _svg(parts, WIDTH, HEIGHT, title)


def interval_chart(bars: Sequence[Bar], title: str) -> Markup:
    """One row a value: a dot, its interval as a whisker, the number beside it; the scale starts at 0."""
    width, left, right = 420, 12 + LETTER * max(len(bar.label) for bar in bars), 56
    marks = ticks(0, max([bar.high for bar in bars] + [1.0]), 4)
    x = Scale(0, marks[-1], left, width - right)
    height = ROW * len(bars) + 24
    parts = [
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="2" y2="{1}"/>').format(x.at(mark), height - 20)
        for mark in marks
    ]
    parts += [_text(x.at(mark), height - 6, mark, "middle") for mark in marks]
    for number, bar in enumerate(bars):
        parts.append(_whisker(bar, x, ROW * number + ROW / 2 + 2, width))
    return _svg(parts, width, height, title)


def _whisker(bar: Bar, x: Scale, middle: float, width: int) -> Markup:
    return Markup(
        '<text class="label" x="0" y="{base}">{label}</text>'
        '<line class="whisker" x1="{low}" x2="{high}" y1="{y}" y2="{y}" style="stroke:{colour}"/>'
        '<circle cx="{value}" cy="{y}" r="5" style="fill:{colour}"/>'
        '<text class="value" x="{end}" y="{base}" text-anchor="end">{number:.1f}</text>'
    ).format(
        base=middle + 4,
        label=bar.label,
        low=x.at(bar.low),
        high=x.at(bar.high),
        y=middle,
        colour=bar.colour,
        value=x.at(bar.value),
        end=width - 2,
        number=bar.value,
    )


def _path(series: Series, x: Scale, y: Scale, number: int, kind: str) -> Markup:
    pairs = zip(series.steps, series.values, strict=True)
    points = " ".join(f"{x.at(step)},{y.at(value)}" for step, value in pairs if math.isfinite(value))
    return Markup('<polyline class="{}" style="stroke:var(--line-{})" points="{}"/>').format(kind, number % 6, points)


def _rule(start: float, end: float, height: float, mark: float) -> Markup:
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(start, end, y=height)
    return line + _text(start - 6, height + 4, mark, "end")


def _text(x: float, y: float, number: float, anchor: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{:g}</text>').format(x, y, anchor, number)


def _svg(parts: Sequence[Markup], width: int, height: int, title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {w} {h}" role="img" aria-label="{t}">{body}</svg>').format(
        w=width, h=height, t=escape(title), body=Markup("").join(parts)
    )
