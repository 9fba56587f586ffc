"""Elements of HTML, and charts as SVG: axes, lines and dots. Knows no report.

Text cannot become markup accidentally: every string that is not Markup is escaped. Positions are
percent of the plot, `along` from its left and `up` from its bottom. Classes give colours and
sizes (style.css). The plot is an inner `svg` of 1000 by 1000 units that is stretched to the
available size; text is outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain, count, pairwise
from math import ceil, floor, log10
from typing import NamedTuple

from simpleipc_cli.bench.conditions import NANOSECONDS
from simpleipc_cli.bench.histogram import highest_percentile, samples_needed
from simpleipc_cli.text import printable

_SIZE = 1000
_LINE_HEIGHT = 6.5  # percent of a chart's height for one line of text
_VOID = frozenset({"br", "meta"})

_LOG_FROM = 10
"""Highest over lowest from which times are on a log scale (tunable)."""

_EDGE = 0.05
"""Share of a log scale that is left free at each end (tunable)."""

_MAX_STEPS = 5
_TIME_UNITS = {"h": "h", "min": "m", "s": "s", "ms": "ms", "us": "us", "ns": "ns"}


class Markup(str):
    """Text that is already safe markup."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | float) -> Markup:
    """Return an element; content and attributes are escaped unless they are Markup.

    Underscores in attribute names become hyphens; one at the end is dropped (class_).
    Attributes with an empty value are left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_text(_number(value))}"'
        for name, value in attributes.items()
        if value != ""
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(content)}</{tag}>")


def join(pieces: Iterable[str]) -> Markup:
    """Concatenate pieces; they are escaped unless they are Markup."""
    return Markup("".join(map(_text, pieces)))


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `ticks` are values and their labels."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    transform: Callable[[float], float] = float

    @property
    def is_log(self) -> bool:
        return self.transform is log10

    def position(self, value: float) -> float:
        """Return the position of a value in percent; one beyond an end is at that end."""
        low, high = self.transform(self.low), self.transform(self.high)
        return (self.transform(min(max(value, self.low), self.high)) - low) / (high - low) * 100


def percentile_scale(samples: int) -> Scale | None:
    """Return an axis of percentiles on which each further nine has the same width.

    It ends at the last percentile that the samples support, as in the plots of HdrHistogram.
    None with too few samples for a median.
    """
    if samples < samples_needed(50):
        return None
    last = highest_percentile(samples)
    ticks = [(0.0, "0 %"), (50.0, "50 %"), (90.0, "90 %"), (99.0, "99 %")]
    ticks += [(float(f"99.{'9' * n}"), f"99.{'9' * n} %") for n in range(1, 13)]
    return Scale(0, last, tuple(tick for tick in ticks if tick[0] <= last), _nines)


def latency_scale(lowest: float, highest: float) -> Scale:
    """Return an axis for times from `lowest` to `highest` nanoseconds.

    On a log scale if the highest is at least ten times the lowest, else linear from 0.
    """
    if highest < _LOG_FROM * lowest:
        return _from_zero(highest, _short_ns)
    lowest = max(lowest, 1)  # log(0) is undefined, and times are whole nanoseconds
    highest = max(highest, _LOG_FROM * lowest)
    edge = (highest / lowest) ** _EDGE
    low, high = lowest / edge, highest * edge
    for marks, step in chain([((1, 2, 5), 1), ((1, 3), 1)], (((1,), step) for step in count(1))):
        powers = range(0, floor(log10(high)) + 1, step)
        ticks = [mark * 10**power for power in powers for mark in marks]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _MAX_STEPS + 1:
            break
    return Scale(low, high, tuple((tick, _short_ns(tick)) for tick in ticks), log10)


def rate_scale(highest: float) -> Scale:
    """Return an axis for rates per second, from 0."""
    return _from_zero(highest, lambda rate: f"{rate:,.0f}" if rate >= 1000 else f"{rate:g}")


def time_scale(end: int) -> Scale:
    """Return an axis from 0 to exactly `end` nanoseconds, 1 or more."""
    units = [(name, NANOSECONDS[unit]) for name, unit in _TIME_UNITS.items()]
    name, unit = next(((name, unit) for name, unit in units if end >= 2 * unit), units[-1])
    step = _round_step(end / unit)
    numbers = [number * step for number in range(floor(end / unit / step + 1e-9) + 1)]
    return Scale(0, end, tuple((number * unit, f"{number:g} {name}") for number in numbers))


def spread(positions: list[float], gap: float) -> list[float]:
    """Move positions in percent so that no two are closer than `gap`: for labels beside lines.

    They keep their order; of equal ones the first is the highest.
    """
    order = sorted(range(len(positions)), key=lambda index: (positions[index], -index))
    moved = list(positions)
    for below, index in pairwise(order):
        moved[index] = max(moved[index], moved[below] + gap)
    highest = 100.0
    for index in reversed(order):
        moved[index] = min(moved[index], highest)
        highest = moved[index] - gap
    return moved


def _nines(q: float) -> float:
    return -log10(1 - q / 100)


def _from_zero(highest: float, name: Callable[[float], str]) -> Scale:
    """Return an axis from 0 to a round number."""
    highest = max(highest, 1e-6)
    step = _round_step(highest)
    ticks = [number * step for number in range(ceil(highest / step - 1e-9) + 1)]
    return Scale(0, ticks[-1], tuple((tick, name(tick)) for tick in ticks))


def _round_step(highest: float) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that gives few ticks."""
    power = floor(log10(highest / _MAX_STEPS))
    steps = [float(f"{mark}e{power + more}") for more in (0, 1) for mark in (1, 2, 5)]
    return next(step for step in steps if step * _MAX_STEPS >= highest * (1 - 1e-9))


def _short_ns(ns: float) -> str:
    """Format a round time briefly: "50 us"."""
    if not ns:
        return "0"
    for unit in ("s", "ms", "us"):
        if ns >= NANOSECONDS[unit]:
            return f"{ns / NANOSECONDS[unit]:g} {unit}"
    return f"{ns:g} ns"


class Line(NamedTuple):
    """A line in a plot, with its name, which is written at its end."""

    kind: str
    """Its CSS class."""
    name: str
    end: float
    """The y coordinate of its right end."""
    path: str
    has_area: bool = False
    """Whether the area below it is tinted."""


def figure(
    title: str,
    description: str,
    caption: str,
    scales: tuple[Scale, Scale],
    lines: Sequence[Line],
    dots: Iterable[Markup] = (),
) -> Markup:
    """Return a section with a chart; `scales` are the horizontal and the vertical one.

    The description is for screen readers. Beside the lines are their names, or, on a small
    screen, a legend above the chart.
    """
    along, up = scales
    if up.is_log:
        caption += " Log scale."
    name = title.lower().replace(" ", "-")
    legend = (element("li", line.name, class_=f"key {line.kind}") for line in lines)
    ends = zip(lines, spread([line.end for line in lines], _LINE_HEIGHT), strict=True)
    chart = element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-description"),
        join(_y_tick(up.position(value), label) for value, label in up.ticks),
        join(_x_ticks(along)),
        element("line", x1="0", x2="100%", y1="100%", y2="100%", class_="axis"),
        element(
            "svg",
            join(_line(line) for line in lines),
            join(dots),
            viewBox=f"0 0 {_SIZE} {_SIZE}",
            preserveAspectRatio="none",
            width="100%",
            height="100%",
        ),
        join(
            element(
                "text", line.name, class_=f"name {line.kind}", **_at(100, end), dx="8", dy=".32em"
            )
            for line, end in ends
        ),
        class_="chart",
        role="img",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-description",
    )
    return element(
        "section",
        element("h2", title),
        element(
            "figure",
            element("figcaption", caption, class_="note"),
            element("ul", *legend, class_="legend", aria_hidden="true"),
            chart,
        ),
    )


def point(along: float, up: float) -> str:
    """Return a position in the units of the plot."""
    return f"{along * _SIZE / 100:.1f} {_SIZE - up * _SIZE / 100:.1f}"


def dot(kind: str, along: float, up: float, title: str) -> Markup:
    """Return a dot in the plot, with a tooltip."""
    path = f"M{point(along, up)}h0"
    return element("path", element("title", title), class_=f"dot {kind}", d=path)


def _line(line: Line) -> Markup:
    drawn = element("path", class_=f"line {line.kind}", d=line.path)
    if not line.has_area:
        return drawn
    area = element("path", class_=f"area {line.kind}", d=f"{line.path}V{_SIZE}H0Z")
    return join([area, drawn])


def _y_tick(at: float, name: str) -> Markup:
    y = _at(0, at)["y"]
    line = element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
    return join([line, element("text", name, class_="tick up", x="0", y=y, dx="-8", dy=".32em")])


def _x_ticks(scale: Scale) -> Iterator[Markup]:
    """Yield ticks and their labels; every second, class "roomy", is hidden on small screens.

    The last one is kept: of percentiles it matters most.
    """
    for number, (value, name) in enumerate(reversed(scale.ticks)):
        x = _at(scale.position(value), 0)["x"]
        yield element("line", x1=x, x2=x, y1="0", y2="100%", class_="grid")
        kind = "tick along roomy" if number % 2 else "tick along"
        yield element("text", name, class_=kind, x=x, y="100%", dy="1.6em")


def _at(along: float, up: float) -> dict[str, str]:
    return {"x": f"{_number(float(along))}%", "y": f"{_number(float(100 - up))}%"}


def _number(value: str | float) -> str:
    """Format a coordinate with two decimals, far finer than a screen shows."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def _text(text: str) -> str:
    return text if isinstance(text, Markup) else escape(printable(text))
