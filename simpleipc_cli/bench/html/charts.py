"""The charts of a page: latency by percentile, latency over time, throughput over time.

Pure functions from a report to markup. How things are drawn is known in drawing.py, where
they lie in scales.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench.histogram import Histogram, percentile_name
from simpleipc_cli.bench.html.axes import (
    PercentileScale,
    Scale,
    latency_scale,
    percentile_scale,
    rate_scale,
    time_scale,
)
from simpleipc_cli.bench.html.markup import Markup
from simpleipc_cli.bench.html.resample import (
    ENOUGH_FOR_A_RATE,
    ENOUGH_FOR_P99,
    P99_BELOW_MAX,
    Window,
    gaps,
    has_p99,
    resample,
)
from simpleipc_cli.bench.html.svg import (
    Frame,
    Line,
    broken,
    chart,
    column,
    dot,
    level,
    rising,
    steps,
    strip,
    upright,
    words,
)
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.units import format_ns

_MARGIN = 7.0  # percent of a chart's width that a time in letters takes
_APART = 5.0  # percent of a chart's height from which two lines are seen as two
_FEWEST = 4  # stretches from which there is anything to see over time; at will
_ROOM_FOR_WORDS = 14.0  # percent of a chart's width into which "no answers" fits
_NOTABLE_TAIL = 3.0  # percent of a chart's width from which the time after the load is marked


class Chart(NamedTuple):
    """A chart and what one must know to read it."""

    svg: Markup
    keys: tuple[tuple[str, str], ...]
    """The class and the name of all that is drawn."""
    is_log: bool = False
    """Whether times are on a log scale."""
    width: int = 0
    """How many nanoseconds each point or step sums up; 0 in a chart by percentile."""


def latency_by_percentile(report: Report) -> Chart | None:
    """How long the slowest answers took; None with too few answers for a median.

    Drawn as far as so many samples support a percentile, by samples_needed().
    """
    along = percentile_scale(report.latency.count)
    if along is None:
        return None
    timed = [("latency", "response" if report.is_open else "service", report.latency)]
    if report.is_open:
        timed.append(("service", "service", report.tally.total))
    ends = [_value_at(histogram, along.last) for *_, histogram in timed]
    up = latency_scale(min(histogram.min or 0 for *_, histogram in timed), max(ends))
    lines = [
        Line(kind, name, up.place(end), rising(histogram, along, up))
        for (kind, name, histogram), end in zip(timed, ends, strict=True)
    ]
    points = [
        _Point(kind, name, q, ns)
        for kind, name, histogram in timed
        for q, _ in along.ticks[1:]
        if (ns := histogram.percentile(q)) is not None
    ]
    frame = Frame(
        "percentiles",
        "Latency by percentile",
        ". ".join(f"{name} time: {_figures(histogram)}" for _, name, histogram in timed),
    )
    svg = chart(
        frame,
        [(along.place(q), name) for q, name in along.ticks],
        _ticks(up),
        lines,
        over=[
            dot(kind, along.place(q), up.place(ns), f"{name} {percentile_name(q)}: {format_ns(ns)}")
            for kind, name, q, ns in points
        ],
        beside=_values(points, along, up),
    )
    return Chart(svg, _keys(lines), up.is_log)


def latency_over_time(report: Report) -> Chart | None:
    """Median, 99th percentile and longest time of each stretch; None with nothing to show.

    Without the 99th percentile where most stretches hold too few answers for one.
    """
    run = resample(report.tally.timeline, report.tally.elapsed, ENOUGH_FOR_P99)
    answered = [stretch for stretch in run if stretch.slot.answered]
    if not answered or len(run) < _FEWEST:
        return None
    figures = {"max": _longest, "p50": _median}
    if has_p99(run):
        figures = {"max": _longest, "p99": _p99, "p50": _median}
    along = time_scale(run[-1].end)
    up = latency_scale(
        min(_median(stretch) or 0 for stretch in answered),
        max(_longest(stretch) or 0 for stretch in answered),
    )
    lines = [
        _broken_line(name, up.place(figure(answered[-1]) or 0), broken(run, along, up, figure))
        for name, figure in figures.items()
    ]
    empty = gaps(run)
    failed = [stretch for stretch in run if stretch.slot.failures]
    svg = chart(
        Frame("latencies", "Latency over time", _said_of_latency(report, run, empty)),
        _ticks(along),
        _ticks(up),
        lines,
        under=[column("gap", *_placed(along, gap), "no answers") for gap in empty],
        over=_hovers(run, along),
        beside=[
            *_gap_names(along, empty),
            *(_strip(stretch, along) for stretch in failed),
            *_end_of_load(report, along),
        ],
    )
    return Chart(svg, _keys(lines, bool(failed)), up.is_log, run[0].end - run[0].begin)


def throughput_over_time(report: Report) -> Chart | None:
    """Answers and failures per second, and what was offered; None with nothing to show."""
    run = resample(report.tally.timeline, report.tally.elapsed, ENOUGH_FOR_A_RATE)
    if len(run) < _FEWEST:
        return None
    offered = report.offered_rate
    along = time_scale(run[-1].end)
    highest = max(max(stretch.rate, stretch.failure_rate) for stretch in run)
    up = rate_scale(max(highest, offered or 0))
    answers = steps(run, along, up, lambda stretch: stretch.rate)
    lines = [Line("rate", "answered", up.place(run[-1].rate), answers, has_area=True)]
    if offered is not None:
        lines.append(Line("offered", "offered", up.place(offered), level(up.place(offered))))
    if any(stretch.slot.failures for stretch in run):
        failures = steps(run, along, up, lambda stretch: stretch.failure_rate)
        lines.append(Line("failed", "failed", up.place(run[-1].failure_rate), failures))
    rates = sorted(stretch.rate for stretch in run)
    said = f"{wording.rate(rates[0])} to {wording.rate(rates[-1])} answered"
    if offered is not None:
        said += f", {wording.rate(offered)} offered"
    svg = chart(
        Frame("throughput", "Throughput over time", said),
        _ticks(along),
        _ticks(up),
        lines,
        over=_hovers(run, along),
        beside=_end_of_load(report, along),
    )
    return Chart(svg, _keys(lines), width=run[0].end - run[0].begin)


class _Point(NamedTuple):
    """A percentile that has a dot."""

    kind: str
    name: str
    q: float
    ns: int


def _values(points: list[_Point], along: PercentileScale, up: Scale) -> Iterator[Markup]:
    """What the dots mean, where there is room.

    Above and to the left of a rising line there is none of it, and of the line below that
    none below and to the right.
    """
    above: dict[float, float] = {}
    for kind, _, q, ns in points:
        x, y = along.place(q), up.place(ns)
        if kind == "latency":
            above[q] = y
            if x >= _MARGIN:
                yield words(f"value left {kind}", x, y, format_ns(ns), dx="-5", dy="-.5em")
        elif x <= 100 - _MARGIN and above[q] - y >= _APART:
            yield words(f"value {kind}", x, y, format_ns(ns), dx="5", dy="1.3em")


def _value_at(histogram: Histogram, q: float) -> int:
    """The percentile `q`, though it has more decimals than Histogram.percentile() takes."""
    return histogram.value_at(max(1, ceil(q / 100 * histogram.count)))


def _median(stretch: Window) -> int | None:
    return stretch.slot.percentile(50)


def _p99(stretch: Window) -> int | None:
    return stretch.slot.percentile(99)


def _longest(stretch: Window) -> int | None:
    return stretch.slot.max


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    return [(scale.place(value), name) for value, name in scale.ticks]


def _keys(lines: list[Line], has_strip: bool = False) -> tuple[tuple[str, str], ...]:
    keys = tuple((line.kind, line.name) for line in lines)
    return (*keys, ("failures", "failures")) if has_strip else keys


def _placed(along: Scale, span: tuple[int, int]) -> tuple[float, float]:
    begin, end = span
    return along.place(begin), along.place(end)


def _hovers(run: list[Window], along: Scale) -> list[Markup]:
    """What can be pointed at, to read the figures of a stretch."""
    return [column("hover", *_placed(along, stretch[:2]), _what(stretch)) for stretch in run]


def _broken_line(name: str, end: float, paths: tuple[str, str]) -> Line:
    return Line(name, name, end, paths[0], dots=paths[1])


def _strip(stretch: Window, along: Scale) -> Markup:
    """The mark of failures."""
    share = stretch.slot.failures / stretch.slot.requests
    return strip("failures", *_placed(along, stretch[:2]), share, _what(stretch))


def _what(stretch: Window) -> str:
    """What happened in a stretch."""
    slot = stretch.slot
    said = f"{format_ns(stretch.begin)} to {format_ns(stretch.end)}: {slot.answered:,} answered"
    said += f" ({wording.rate(stretch.rate)})"
    if slot.failures:
        said += f", {slot.failures:,} failed"
    figures = {"p50": _median(stretch), "p99": _p99(stretch), "max": _longest(stretch)}
    if slot.answered < P99_BELOW_MAX:
        del figures["p99"]
    return said + "".join(f", {n} {format_ns(ns)}" for n, ns in figures.items() if ns is not None)


def _gap_names(along: Scale, empty: list[tuple[int, int]]) -> Iterator[Markup]:
    for gap in empty:
        begin, end = _placed(along, gap)
        if end - begin >= _ROOM_FOR_WORDS:
            yield words("gap-name", (begin + end) / 2, 50, "no answers")


def _end_of_load(report: Report, along: Scale) -> Iterator[Markup]:
    """Where no more requests were due, if what was in flight then took a while to end."""
    duration = report.settings.get("duration")
    if isinstance(duration, int) and 100 - (at := along.place(duration)) >= _NOTABLE_TAIL:
        yield upright("end-of-load", at)
        yield words("end-of-load-name", at, 96, "end of load", dx="-6")


def _figures(histogram: Histogram) -> str:
    """The percentiles in words."""
    return ", ".join(
        f"{percentile_name(q)} {format_ns(ns)}"
        for q, ns in histogram.percentiles().items()
        if ns is not None
    )


def _said_of_latency(report: Report, run: list[Window], empty: list[tuple[int, int]]) -> str:
    """The chart in words."""
    medians = sorted(ns for stretch in run if (ns := _median(stretch)) is not None)
    longest = max(ns for stretch in run if (ns := _longest(stretch)) is not None)
    said = f"The median goes from {format_ns(medians[0])} to {format_ns(medians[-1])}"
    said += f", the longest time is {format_ns(longest)}"
    for begin, end in empty[:3]:
        said += f"; no answers from {format_ns(begin)} to {format_ns(end)}"
    if failed := report.tally.failed():
        said += f"; {failed:,} failures"
    return said
