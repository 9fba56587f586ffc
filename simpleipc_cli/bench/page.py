"""A report as one HTML file with SVG charts, without scripts, that loads no other files.

Every string that is not Markup is escaped, so that no text becomes markup. As a second defence, the
page's content security policy forbids scripts and connections. Positions in a chart are in percent
of the plot, `along` from its left and `up` from its bottom. CSS classes set colours and sizes
(style.css). The plot is an inner `svg` of 1000 by 1000 units that is stretched to the available
size; text is outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import groupby
from math import ceil, floor, log10

from simpleipc_cli.bench.conditions import NANOSECONDS
from simpleipc_cli.bench.format import Section, format_ns
from simpleipc_cli.bench.histogram import Histogram, Window, resample, samples_needed
from simpleipc_cli.bench.report import Report
from simpleipc_cli.text import printable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_COLOURED = frozenset({"better", "worse", "passed", "failed"})  # classes of style.css
_SIZE = 1000
_VOID = frozenset({"meta"})
_MAX_STEPS = 5
_LOG_FROM = 10  # minimum ratio of the highest to the lowest time for a log scale (tunable)
_EDGE = 0.05  # empty share of a log scale at each end (tunable)
_ENOUGH_FOR_RATE = 20  # requests per window; one request more changes a rate by 5 %
_ENOUGH_FOR_P99 = 120  # requests per window; nearly all windows then have a p99 (tunable)
_MIN_WINDOWS = 4  # minimum number of windows for a chart over time (tunable)


def to_html(report: Report, parts: Sequence[Section]) -> str:
    """Return the whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"sipc bench: {report.path}"),
        element("style", Markup(files(__package__).joinpath("style.css").read_text("utf-8"))),
    )
    first, *rest = map(_section, parts)
    drawn = [
        chart
        for draw in (latency_by_percentile, latency_over_time, throughput_over_time)
        if (chart := draw(report)) is not None
    ]
    heading = element("h1", "Load on ", element("code", report.path))
    body = element("body", heading, element("main", first, *drawn, *rest))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _section(section: Section) -> Markup:
    name = section.title.lower().replace(" ", "-")
    return element(
        "section",
        element("h2", section.title, id=name),
        *(element("p", text, class_="warning") for text in section.warnings),
        *(element("p", text, class_="note") for text in section.notes),
        _table(section, name),
    )


def _table(table: Section, name: str) -> Markup:
    """Return a table that scrolls if the screen is too narrow; `name` is the id of its heading."""
    heads = [element("th", head, scope="col") if head else element("td") for head in table.heads]
    rows = [element("tr", *heads)] if any(table.heads) else []
    for first, *cells in table.rows:
        described = (element("td", cell, class_=_class(cell)) for cell in cells)
        rows.append(element("tr", element("th", first, scope="row"), *described))
    kind = "words" if table.has_words else ""
    content = element("table", *rows, aria_labelledby=name, class_=kind)
    return element(
        "div", content, class_="scroll", role="region", tabindex="0", aria_labelledby=name
    )


def _class(cell: str) -> str:
    word = cell.partition(":")[0]
    return word if word in _COLOURED else ""


# Charts


def latency_by_percentile(report: Report) -> Markup | None:
    """Draw latency by percentile; return None if there are too few responses for a median."""
    count = report.latency.count
    if count < samples_needed(50):
        return None
    times = {"service": report.results.total}
    if report.is_open:
        times = {"response": report.results.response, **times}
    x_scale = percentile_scale(count)
    y_scale = latency_scale(
        min(histogram.min or 0 for histogram in times.values()),
        max(histogram.value_at(count - 1) for histogram in times.values()),
    )
    lines = {name: _percentile_path(one, x_scale, y_scale) for name, one in times.items()}
    caption = (
        "The scale is logarithmic: 90 to 99 % is as wide as 99 to 99.9 %."
        f" The line ends at the second longest of {count:,}; the longest took"
        f" {format_ns(report.latency.max or 0)}."
    )
    return figure("Latency by percentile", caption, (x_scale, y_scale), lines)


def latency_over_time(report: Report) -> Markup | None:
    """Draw median, 99th percentile and maximum of each window; return None with too few windows."""
    windows = resample(report.results.timeline, report.results.elapsed, _ENOUGH_FOR_P99)
    times = [window.bucket.times for window in windows if window.bucket.times.count]
    if not times or len(windows) < _MIN_WINDOWS:
        return None
    x_scale = time_scale(windows[-1].end)
    y_scale = latency_scale(
        min(one.percentile(50) or 0 for one in times), max(one.max or 0 for one in times)
    )
    names = ("max", "p99", "p50")
    figures = [window.bucket.times.figures() for window in windows]
    lines = {
        name: _line_path(windows, [one[name] for one in figures], x_scale, y_scale)
        for name in names
        if any(one[name] is not None for one in figures)
    }
    caption = f"Each point stands for the responses within {_width(windows)}."
    if len(lines) < len(names):
        caption += " They are too few for a 99th percentile."
    return figure("Latency over time", caption, (x_scale, y_scale), lines)


def throughput_over_time(report: Report) -> Markup | None:
    """Draw responses, failures and offered requests per second; None with too few windows."""
    windows = resample(report.results.timeline, report.results.elapsed, _ENOUGH_FOR_RATE)
    if len(windows) < _MIN_WINDOWS:
        return None
    rates = {"answered": [window.rate(window.bucket.times.count) for window in windows]}
    if report.settings.rate is not None:
        rates["offered"] = [report.settings.rate] * len(windows)
    if report.results.failures:
        rates["failed"] = [window.rate(window.bucket.failures) for window in windows]
    x_scale = time_scale(windows[-1].end)
    y_scale = rate_scale(max(map(max, rates.values())))
    lines = {name: _step_path(windows, those, x_scale, y_scale) for name, those in rates.items()}
    caption = f"Responses per second, in steps of {_width(windows)}."
    return figure("Throughput over time", caption, (x_scale, y_scale), lines)


def _width(windows: Sequence[Window]) -> str:
    return format_ns(windows[0].end - windows[0].begin)


# Axes


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `ticks` are values and their labels."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    transform: Callable[[float], float] = float

    def position(self, value: float) -> float:
        """Return the position of a value in percent, limited to 0 to 100."""
        low, high = self.transform(self.low), self.transform(self.high)
        return (self.transform(min(max(value, self.low), self.high)) - low) / (high - low) * 100


def percentile_scale(samples: int) -> Scale:
    """Return a logarithmic axis of percentiles: 90 to 99 % is as wide as 99 to 99.9 %.

    It ends at the last percentile that one sample exceeds, as in the plots of HdrHistogram.
    """
    last = 100 * (samples - 1) / samples
    ticks = [(0.0, "0 %"), (50.0, "50 %"), (90.0, "90 %"), (99.0, "99 %")]
    ticks += [(float(f"99.{'9' * n}"), f"99.{'9' * n} %") for n in range(1, 13)]
    return Scale(0, last, tuple(tick for tick in ticks if tick[0] <= last), _nines)


def latency_scale(lowest: float, highest: float) -> Scale:
    """Return an axis for times from `lowest` to `highest` nanoseconds.

    It is a log scale if the highest is at least ten times the lowest, else linear from 0.
    """
    if highest < _LOG_FROM * lowest:
        return _from_zero(highest, _short_ns)
    lowest = max(lowest, 1)  # log(0) is undefined, and times are whole nanoseconds
    highest = max(highest, _LOG_FROM * lowest)
    edge = (highest / lowest) ** _EDGE
    low, high = lowest / edge, highest * edge
    for marks, step in ((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 3):
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
    step = _round_step(end)
    ticks = [number * step for number in range(floor(end / step + 1e-9) + 1)]
    return Scale(0, end, tuple((tick, _short_ns(tick)) for tick in ticks))


def _nines(q: float) -> float:
    return -log10(1 - q / 100)


def _from_zero(highest: float, name: Callable[[float], str]) -> Scale:
    """Return an axis from 0 to a round number."""
    highest = max(highest, 1e-6)
    step = _round_step(highest)
    ticks = [number * step for number in range(ceil(highest / step - 1e-9) + 1)]
    return Scale(0, ticks[-1], tuple((tick, name(tick)) for tick in ticks))


def _round_step(highest: float) -> float:
    """Return the smallest step, of 1, 2 or 5 times a power of ten, that needs few ticks."""
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


# Paths


def _percentile_path(histogram: Histogram, along: Scale, up: Scale) -> str:
    """Return the path of a histogram by percentile, up to the end of its scale.

    The path has steps, as percentiles are nearest ranks. Steps narrower than a thousandth of the
    plot are joined, as there may be 20,000.
    """
    lowest, highest = histogram.min or 0, histogram.max or 0
    points = [_point(0, up.position(lowest))]
    seen, x = 0, 0.0
    for low, high, count in histogram.buckets():
        seen += count
        y = up.position(min(max((low + high) // 2, lowest), highest))
        end = along.position(100 * seen / histogram.count)
        if end - x >= 0.1 or end >= 100:
            points += [_point(x, y), _point(end, y)]
            x = end
        if end >= 100:
            break
    return f"M{'L'.join(points)}"


def _line_path(
    windows: Sequence[Window], values: Sequence[float | None], along: Scale, up: Scale
) -> str:
    """Return the path through the value at the middle of each window; gaps where there is none."""
    path = ""
    pairs = zip(windows, values, strict=True)
    for is_gap, group in groupby(pairs, lambda pair: pair[1] is None):
        if not is_gap:
            points = [
                _point(along.position((window.begin + window.end) / 2), up.position(value or 0))
                for window, value in group
            ]
            path += f"M{'L'.join(points)}" + ("h0" if len(points) == 1 else "")
    return path


def _step_path(windows: Sequence[Window], values: Sequence[float], along: Scale, up: Scale) -> str:
    """Return the path of a value that is constant within each window."""
    points = [
        _point(along.position(at), up.position(value))
        for window, value in zip(windows, values, strict=True)
        for at in (window.begin, window.end)
    ]
    return f"M{'L'.join(points)}"


def _point(along: float, up: float) -> str:
    """Return a position in the units of the plot."""
    return f"{along * _SIZE / 100:.1f} {_SIZE - up * _SIZE / 100:.1f}"


# Markup


class Markup(str):
    """Text that is markup and needs no escaping."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Markup:
    """Return an element; content and attributes are escaped unless they are Markup.

    Underscores in attribute names become hyphens; one at the end is dropped (class_).
    Attributes with an empty value are left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for name, value in attributes.items()
        if value != ""
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{''.join(map(_text, content))}</{tag}>")


def figure(
    title: str, caption: str, scales: tuple[Scale, Scale], lines: Mapping[str, str]
) -> Markup:
    """Return a section with a chart; `scales` are the horizontal and the vertical axis.

    `lines` are paths by name, which is also their CSS class.
    """
    along, up = scales
    if up.transform is log10:
        caption += " Log scale."
    keys = [element("li", name, class_=f"key {name}") for name in lines]
    paths = [element("path", class_=f"line {name}", d=path) for name, path in lines.items()]
    box = f"0 0 {_SIZE} {_SIZE}"
    plot = element(
        "svg", *paths, viewBox=box, preserveAspectRatio="none", width="100%", height="100%"
    )
    chart = element(
        "svg",
        *_y_ticks(up),
        *_x_ticks(along),
        element("line", x1="0", x2="100%", y1="100%", y2="100%", class_="axis"),
        plot,
        class_="chart",
        role="img",
        aria_label=title,
    )
    described = element("figcaption", caption, class_="note")
    legend = element("ul", *keys, class_="legend")
    return element("section", element("h2", title), element("figure", described, legend, chart))


def _y_ticks(scale: Scale) -> Iterator[Markup]:
    for value, name in scale.ticks:
        y = _percent(100 - scale.position(value))
        yield element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
        yield element("text", name, class_="tick up", x="0", y=y, dx="-8", dy=".32em")


def _x_ticks(scale: Scale) -> Iterator[Markup]:
    """Yield ticks and labels. Small screens hide every second one, which has the class "roomy".

    They show the last one, which is the most important of the percentiles.
    """
    for number, (value, name) in enumerate(reversed(scale.ticks)):
        x = _percent(scale.position(value))
        yield element("line", x1=x, x2=x, y1="0", y2="100%", class_="grid")
        kind = "tick along roomy" if number % 2 else "tick along"
        yield element("text", name, class_=kind, x=x, y="100%", dy="1.6em")


def _percent(number: float) -> str:
    """Format a coordinate with two decimals, more than a screen can show."""
    return f"{number:.2f}%"


def _text(text: str) -> str:
    return text if isinstance(text, Markup) else escape(printable(text))
