"""Elements of HTML, and charts as SVG; text cannot become markup by mistake.

Every string that is not Markup is escaped. Knows no report. Positions are percent of the plot,
`along` from its left and `up` from its bottom, as in axes.py. Classes give colours and sizes
(style.css). The plot is an inner `svg` of 1000 by 1000 units that is stretched to the available
size; text is outside of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from simpleipc_cli.bench.html.axes import Scale, spread
from simpleipc_cli.text import printable

_SIZE = 1000
_LINE_HEIGHT = 6.5  # percent of a chart's height for one line of text
_VOID = frozenset({"br", "meta"})


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
