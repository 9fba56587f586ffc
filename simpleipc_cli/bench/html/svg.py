"""What the charts are drawn from: a frame with its axes, lines, and marks, as SVG.

Knows no report. Places are percent of the plot, from its left and from its bottom, as
scales.py gives them. Colours and sizes are the page's, by class (see style.py). The
plot itself is an inner `svg`, stretched to whatever room there is, 0 to 1000 each way;
letters stand beside and are not stretched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.html.axes import PercentileScale, Scale, spread
from simpleipc_cli.bench.html.markup import Markup, element, join, percent
from simpleipc_cli.bench.html.resample import Window

_FULL = 1000
_LETTER = 3.3  # percent of a chart's width on a phone that a letter takes, and room around it
_NAME_GAP = 6.5  # percent of a chart's height that a line of letters takes


class Line(NamedTuple):
    """A line in a plot, with its name, which is written where it ends."""

    kind: str
    """Its class."""
    name: str
    end: float
    """How high its right end lies."""
    path: str
    has_area: bool = False
    """Whether what is below it is tinted."""
    dots: str = ""
    """The path of what is too short for a line."""


class Frame(NamedTuple):
    """What a chart is called, and what one hears of it who does not see it."""

    id_: str
    title: str
    description: str


def chart(
    frame: Frame,
    along: Iterable[tuple[float, str]],
    up: Iterable[tuple[float, str]],
    lines: Sequence[Line],
    *,
    under: Iterable[str] = (),
    over: Iterable[str] = (),
    beside: Iterable[str] = (),
) -> Markup:
    """A whole chart. `along` and `up` are the places of ticks and their names.

    `under` and `over` are drawn in the plot, below and above the lines, `beside` around it.
    """
    heading, described = f"{frame.id_}-title", f"{frame.id_}-description"
    names = zip(lines, spread([line.end for line in lines], _NAME_GAP), strict=True)
    return element(
        "svg",
        element("title", frame.title, id=heading),
        element("desc", frame.description, id=described),
        join(_tick_up(at, name) for at, name in up),
        join(_ticks_along(list(along))),
        element("line", x1="0", x2="100%", y1="100%", y2="100%", class_="axis"),
        element(
            "svg",
            join(under),
            join(_drawn(line) for line in lines),
            join(over),
            viewBox=f"0 0 {_FULL} {_FULL}",
            preserveAspectRatio="none",
            width="100%",
            height="100%",
        ),
        join(_name(line, at) for line, at in names),
        join(beside),
        class_="chart",
        role="img",
        aria_labelledby=heading,
        aria_describedby=described,
    )


def rising(histogram: Histogram, along: PercentileScale, up: Scale) -> str:
    """The path of a histogram by percentile, as far as its scale goes.

    In steps, as the nearest rank makes them. Steps narrower than a thousandth of the plot
    are drawn as one: there may be 20,000.
    """
    lowest, highest = histogram.min or 0, histogram.max or 0
    path = f"M0 {_y(up.place(lowest)):.1f}"
    seen, x = 0, 0.0
    for low, high, count in histogram.buckets():
        seen += count
        y = _y(up.place(min(max((low + high) // 2, lowest), highest)))
        q = 100 * seen / histogram.count
        end = _x(along.place(q))
        if end - x >= 1 or q >= along.last:
            path += f"V{y:.1f}H{end:.1f}"
            x = end
        if q >= along.last:
            break
    return path


def broken(
    run: Sequence[Window], along: Scale, up: Scale, figure: Callable[[Window], float | None]
) -> tuple[str, str]:
    """The path through a figure of each stretch, at its middle; it ends where there is none.

    And the path of those that stand alone between two gaps, each to be drawn as a dot.
    """
    points = [((stretch.begin + stretch.end) / 2, figure(stretch)) for stretch in run]
    path, dots = "", ""
    for is_there, group in groupby(points, lambda point: point[1] is not None):
        placed = [
            f"{_x(along.place(at)):.1f} {_y(up.place(value)):.1f}"
            for at, value in group
            if value is not None
        ]
        if is_there and len(placed) == 1:
            dots += f"M{placed[0]}h0"
        elif is_there:
            path += f"M{'L'.join(placed)}"
    return path, dots


def steps(run: Sequence[Window], along: Scale, up: Scale, figure: Callable[[Window], float]) -> str:
    """The path along a figure of each stretch, as level as that is known."""
    path = f"M0 {_y(up.place(figure(run[0]))):.1f}"
    for stretch in run:
        path += f"V{_y(up.place(figure(stretch))):.1f}H{_x(along.place(stretch.end)):.1f}"
    return path


def level(up: float) -> str:
    """The path of what is the same all the time."""
    return f"M0 {_y(up):.1f}H{_FULL}"


def dot(kind: str, along: float, up: float, title: str) -> Markup:
    """A dot in the plot, with words for whoever points at it."""
    path = f"M{_x(along):.1f} {_y(up):.1f}h0"
    return element("path", element("title", title), class_=f"dot {kind}", d=path)


def column(kind: str, begin: float, end: float, title: str) -> Markup:
    """A part of the plot from top to bottom, with words for whoever points at it."""
    return element(
        "rect",
        element("title", title),
        class_=kind,
        x=_x(begin),
        y="0",
        width=_x(end) - _x(begin),
        height=str(_FULL),
    )


def strip(kind: str, begin: float, end: float, share: float, title: str) -> Markup:
    """A mark above the plot, over a part of it, the higher the larger a share is, 0 to 1.

    What is short is made wide enough to see.
    """
    width = max(end - begin, 0.5)
    height = 3 + 9 * share
    return element(
        "rect",
        element("title", title),
        class_=kind,
        x=percent(min(begin, 100 - width)),
        y=-4 - height,
        width=percent(width),
        height=height,
    )


def upright(kind: str, along: float) -> Markup:
    """A line from top to bottom, beside the plot."""
    return element("line", x1=percent(along), x2=percent(along), y1="0", y2="100%", class_=kind)


def words(
    kind: str, along: float, up: float, said: str, *, dx: str = "0", dy: str = ".32em"
) -> Markup:
    """Words in the plot; `dx` and `dy` move them away from their place."""
    return element("text", said, class_=kind, x=percent(along), y=percent(100 - up), dx=dx, dy=dy)


def _drawn(line: Line) -> Markup:
    paths = {"area": f"{line.path}V{_FULL}H0Z" if line.has_area else ""}
    paths |= {"line": line.path, "dot": line.dots}
    return join(
        element("path", class_=f"{what} {line.kind}", d=path)
        for what, path in paths.items()
        if path
    )


def _name(line: Line, at: float) -> Markup:
    return words(f"name {line.kind}", 100, at, line.name, dx="8")


def _tick_up(at: float, name: str) -> Markup:
    y = percent(100 - at)
    line = element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
    return join([line, element("text", name, class_="tick up", x="0", y=y, dx="-8", dy=".32em")])


def _ticks_along(ticks: list[tuple[float, str]]) -> Iterator[Markup]:
    """Ticks and their names; those for which a phone has no room are marked as roomy.

    The last ones are kept: of percentiles they are what one looks for.
    """
    begin = math.inf  # of the name to the right
    for at, name in reversed(ticks):
        half = len(name) * _LETTER / 2
        is_free = at + half <= begin
        begin = at - half if is_free else begin
        x = percent(at)
        yield element("line", x1=x, x2=x, y1="0", y2="100%", class_="grid")
        kind = "tick along" if is_free else "tick along roomy"
        yield element("text", name, class_=kind, x=x, y="100%", dy="1.6em")


def _x(along: float) -> float:
    return along * _FULL / 100


def _y(up: float) -> float:
    return _FULL - up * _FULL / 100
