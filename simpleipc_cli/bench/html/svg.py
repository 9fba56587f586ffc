"""The parts of a chart as SVG: frame, axes, lines, and marks.

Knows no report. Positions are percent of the plot, `along` from its left and `up` from its
bottom, as in axes.py. Classes give colours and sizes (style.css). The plot is an inner `svg`
of 1000 by 1000 units that is stretched to the available size; text is outside of it.
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

_SIZE = 1000
_LETTER_WIDTH = 3.3  # percent of a chart's width on a phone for one letter, with spacing
_LINE_HEIGHT = 6.5  # percent of a chart's height for one line of text


class Line(NamedTuple):
    """A line in a plot, with its name, which is written at its end."""

    kind: str
    """Its CSS class."""
    name: str
    end: float
    """The height of its right end."""
    path: str
    has_area: bool = False
    """Whether the area below it is tinted."""
    dots: str = ""
    """The path of single points."""


class Frame(NamedTuple):
    """The title of a chart, and its description for screen readers."""

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
    """Return a whole chart. `along` and `up` are the positions of ticks and their labels.

    `under` and `over` are drawn in the plot, before and after the lines, `beside` outside.
    """
    heading, described = f"{frame.id_}-title", f"{frame.id_}-description"
    names = zip(lines, spread([line.end for line in lines], _LINE_HEIGHT), strict=True)
    return element(
        "svg",
        element("title", frame.title, id=heading),
        element("desc", frame.description, id=described),
        join(_y_tick(at, name) for at, name in up),
        join(_x_ticks(list(along))),
        element("line", x1="0", x2="100%", y1="100%", y2="100%", class_="axis"),
        element(
            "svg",
            join(under),
            join(_line_paths(line) for line in lines),
            join(over),
            viewBox=f"0 0 {_SIZE} {_SIZE}",
            preserveAspectRatio="none",
            width="100%",
            height="100%",
        ),
        join(_line_name(line, at) for line, at in names),
        join(beside),
        class_="chart",
        role="img",
        aria_labelledby=heading,
        aria_describedby=described,
    )


def percentile_path(histogram: Histogram, along: PercentileScale, up: Scale) -> str:
    """Return the path of a histogram by percentile, up to the end of its scale.

    In steps, which follow from the nearest rank. Steps narrower than a thousandth of the plot
    are joined: there may be 20,000.
    """
    lowest, highest = histogram.min or 0, histogram.max or 0
    path = f"M0 {_y(up.position(lowest)):.1f}"
    seen, x = 0, 0.0
    for low, high, count in histogram.buckets():
        seen += count
        y = _y(up.position(min(max((low + high) // 2, lowest), highest)))
        q = 100 * seen / histogram.count
        end = _x(along.position(q))
        if end - x >= 1 or q >= along.last:
            path += f"V{y:.1f}H{end:.1f}"
            x = end
        if q >= along.last:
            break
    return path


def line_path(
    run: Sequence[Window], along: Scale, up: Scale, figure: Callable[[Window], float | None]
) -> tuple[str, str]:
    """Return the path through a figure of each window, at its middle, with gaps.

    The second path has the single points between two gaps, which are drawn as dots.
    """
    points = [((window.begin + window.end) / 2, figure(window)) for window in run]
    path, dots = "", ""
    for is_there, group in groupby(points, lambda point: point[1] is not None):
        placed = [
            f"{_x(along.position(at)):.1f} {_y(up.position(value)):.1f}"
            for at, value in group
            if value is not None
        ]
        if is_there and len(placed) == 1:
            dots += f"M{placed[0]}h0"
        elif is_there:
            path += f"M{'L'.join(placed)}"
    return path, dots


def step_path(
    run: Sequence[Window], along: Scale, up: Scale, figure: Callable[[Window], float]
) -> str:
    """Return the path of a figure that is constant within each window."""
    path = f"M0 {_y(up.position(figure(run[0]))):.1f}"
    for window in run:
        path += f"V{_y(up.position(figure(window))):.1f}H{_x(along.position(window.end)):.1f}"
    return path


def level_path(up: float) -> str:
    """Return the path of a constant."""
    return f"M0 {_y(up):.1f}H{_SIZE}"


def dot(kind: str, along: float, up: float, title: str) -> Markup:
    """Return a dot in the plot, with a tooltip."""
    path = f"M{_x(along):.1f} {_y(up):.1f}h0"
    return element("path", element("title", title), class_=f"dot {kind}", d=path)


def band(kind: str, begin: float, end: float, title: str) -> Markup:
    """Return a band of the plot from top to bottom, with a tooltip."""
    return element(
        "rect",
        element("title", title),
        class_=kind,
        x=_x(begin),
        y="0",
        width=_x(end) - _x(begin),
        height=str(_SIZE),
    )


def failure_mark(kind: str, begin: float, end: float, share: float, title: str) -> Markup:
    """Return a mark above a part of the plot, the higher the larger the share (0 to 1).

    It has a minimum width, to be visible.
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


def vertical_line(kind: str, along: float) -> Markup:
    """Return a vertical line over the whole height."""
    return element("line", x1=percent(along), x2=percent(along), y1="0", y2="100%", class_=kind)


def label(
    kind: str, along: float, up: float, text: str, *, dx: str = "0", dy: str = ".32em"
) -> Markup:
    """Return text in the plot; `dx` and `dy` move it away from its position."""
    return element("text", text, class_=kind, x=percent(along), y=percent(100 - up), dx=dx, dy=dy)


def _line_paths(line: Line) -> Markup:
    paths = {"area": f"{line.path}V{_SIZE}H0Z" if line.has_area else ""}
    paths |= {"line": line.path, "dot": line.dots}
    return join(
        element("path", class_=f"{what} {line.kind}", d=path)
        for what, path in paths.items()
        if path
    )


def _line_name(line: Line, at: float) -> Markup:
    return label(f"name {line.kind}", 100, at, line.name, dx="8")


def _y_tick(at: float, name: str) -> Markup:
    y = percent(100 - at)
    line = element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
    return join([line, element("text", name, class_="tick up", x="0", y=y, dx="-8", dy=".32em")])


def _x_ticks(ticks: list[tuple[float, str]]) -> Iterator[Markup]:
    """Yield ticks and their labels; those hidden on small screens have the class "roomy".

    The last ones are kept: of percentiles they matter most.
    """
    begin = math.inf  # of the label to the right
    for at, name in reversed(ticks):
        half = len(name) * _LETTER_WIDTH / 2
        is_free = at + half <= begin
        begin = at - half if is_free else begin
        x = percent(at)
        yield element("line", x1=x, x2=x, y1="0", y2="100%", class_="grid")
        kind = "tick along" if is_free else "tick along roomy"
        yield element("text", name, class_=kind, x=x, y="100%", dy="1.6em")


def _x(along: float) -> float:
    return along * _SIZE / 100


def _y(up: float) -> float:
    return _SIZE - up * _SIZE / 100
