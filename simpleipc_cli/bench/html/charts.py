"""The charts of a page: latency by percentile, latency over time, throughput over time.

Pure functions from a report to markup. svg.py draws, axes.py computes positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench.format import format_ns
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
    band,
    chart,
    dot,
    failure_mark,
    label,
    level_path,
    line_path,
    percentile_path,
    step_path,
    vertical_line,
)
from simpleipc_cli.bench.report import Report

_LABEL_WIDTH = 7.0  # percent of a chart's width for the text of a time
_MIN_DISTANCE = 5.0  # percent of a chart's height at which two lines can be distinguished
_MIN_WINDOWS = 4  # windows of a chart over time (tunable)
_GAP_LABEL_WIDTH = 14.0  # percent of a chart's width for the text "no answers"
_MIN_TAIL = 3.0  # percent of a chart's width from which the end of the load is marked


class Chart(NamedTuple):
    """A chart and its legend."""

    svg: Markup
    keys: tuple[tuple[str, str], ...]
    """The CSS class and the name of each line."""
    is_log: bool = False
    """Whether times are on a log scale."""
    width: int = 0
    """Nanoseconds of each window; 0 in a chart by percentile."""


def latency_by_percentile(report: Report) -> Chart | None:
    """Draw latency by percentile; None with too few answers for a median.

    It ends at the last percentile that the samples support (samples_needed()).
    """
    x_scale = percentile_scale(report.latency.count)
    if x_scale is None:
        return None
    timed = [("latency", "response" if report.is_open else "service", report.latency)]
    if report.is_open:
        timed.append(("service", "service", report.results.total))
    ends = [_value_at(histogram, x_scale.last) for *_, histogram in timed]
    y_scale = latency_scale(min(histogram.min or 0 for *_, histogram in timed), max(ends))
    lines = [
        Line(kind, name, y_scale.position(end), percentile_path(histogram, x_scale, y_scale))
        for (kind, name, histogram), end in zip(timed, ends, strict=True)
    ]
    points = [
        _Point(kind, name, q, ns)
        for kind, name, histogram in timed
        for q, _ in x_scale.ticks[1:]
        if (ns := histogram.percentile(q)) is not None
    ]
    frame = Frame(
        "percentiles",
        "Latency by percentile",
        ". ".join(
            f"{name} time: {_describe_percentiles(histogram)}" for _, name, histogram in timed
        ),
    )
    svg = chart(
        frame,
        [(x_scale.position(q), name) for q, name in x_scale.ticks],
        _ticks(y_scale),
        lines,
        over=[
            dot(
                kind,
                x_scale.position(q),
                y_scale.position(ns),
                f"{name} {percentile_name(q)}: {format_ns(ns)}",
            )
            for kind, name, q, ns in points
        ],
        beside=_value_labels(points, x_scale, y_scale),
    )
    return Chart(svg, _keys(lines), y_scale.is_log)


def latency_over_time(report: Report) -> Chart | None:
    """Draw median, 99th percentile and maximum of each window; None with too few windows.

    Without the 99th percentile if most windows have too few answers for it.
    """
    run = resample(report.results.timeline, report.results.elapsed, ENOUGH_FOR_P99)
    answered = [window for window in run if window.bucket.answered]
    if not answered or len(run) < _MIN_WINDOWS:
        return None
    figures = {"max": _max, "p50": _median}
    if has_p99(run):
        figures = {"max": _max, "p99": _p99, "p50": _median}
    x_scale = time_scale(run[-1].end)
    y_scale = latency_scale(
        min(_median(window) or 0 for window in answered),
        max(_max(window) or 0 for window in answered),
    )
    lines = [
        _line(
            name,
            y_scale.position(figure(answered[-1]) or 0),
            line_path(run, x_scale, y_scale, figure),
        )
        for name, figure in figures.items()
    ]
    empty = gaps(run)
    failed = [window for window in run if window.bucket.failures]
    svg = chart(
        Frame("latencies", "Latency over time", _describe_latency(report, run, empty)),
        _ticks(x_scale),
        _ticks(y_scale),
        lines,
        under=[band("gap", *_span(x_scale, gap), "no answers") for gap in empty],
        over=_hovers(run, x_scale),
        beside=[
            *_gap_labels(x_scale, empty),
            *(_strip(window, x_scale) for window in failed),
            *_end_of_load(report, x_scale),
        ],
    )
    return Chart(svg, _keys(lines, bool(failed)), y_scale.is_log, run[0].end - run[0].begin)


def throughput_over_time(report: Report) -> Chart | None:
    """Draw answers, failures and offered requests per second; None with too few windows."""
    run = resample(report.results.timeline, report.results.elapsed, ENOUGH_FOR_A_RATE)
    if len(run) < _MIN_WINDOWS:
        return None
    offered = report.offered_rate
    x_scale = time_scale(run[-1].end)
    highest = max(max(window.rate, window.failure_rate) for window in run)
    y_scale = rate_scale(max(highest, offered or 0))
    answers = step_path(run, x_scale, y_scale, lambda window: window.rate)
    lines = [Line("rate", "answered", y_scale.position(run[-1].rate), answers, has_area=True)]
    if offered is not None:
        lines.append(
            Line(
                "offered",
                "offered",
                y_scale.position(offered),
                level_path(y_scale.position(offered)),
            )
        )
    if any(window.bucket.failures for window in run):
        failures = step_path(run, x_scale, y_scale, lambda window: window.failure_rate)
        lines.append(Line("failed", "failed", y_scale.position(run[-1].failure_rate), failures))
    rates = sorted(window.rate for window in run)
    text = f"{wording.format_rate(rates[0])} to {wording.format_rate(rates[-1])} answered"
    if offered is not None:
        text += f", {wording.format_rate(offered)} offered"
    svg = chart(
        Frame("throughput", "Throughput over time", text),
        _ticks(x_scale),
        _ticks(y_scale),
        lines,
        over=_hovers(run, x_scale),
        beside=_end_of_load(report, x_scale),
    )
    return Chart(svg, _keys(lines), width=run[0].end - run[0].begin)


class _Point(NamedTuple):
    """A percentile that is marked with a dot."""

    kind: str
    name: str
    q: float
    ns: int


def _value_labels(
    points: list[_Point], x_scale: PercentileScale, y_scale: Scale
) -> Iterator[Markup]:
    """Yield the values of the dots where there is room.

    A rising line leaves room above and to the left of it; the lower one of two, below and to
    the right.
    """
    above: dict[float, float] = {}
    for kind, _, q, ns in points:
        x, y = x_scale.position(q), y_scale.position(ns)
        if kind == "latency":
            above[q] = y
            if x >= _LABEL_WIDTH:
                yield label(f"value left {kind}", x, y, format_ns(ns), dx="-5", dy="-.5em")
        elif x <= 100 - _LABEL_WIDTH and above[q] - y >= _MIN_DISTANCE:
            yield label(f"value {kind}", x, y, format_ns(ns), dx="5", dy="1.3em")


def _value_at(histogram: Histogram, q: float) -> int:
    """Return the percentile `q` with more decimals than Histogram.percentile() accepts."""
    return histogram.value_at(max(1, ceil(q / 100 * histogram.count)))


def _median(window: Window) -> int | None:
    return window.bucket.percentile(50)


def _p99(window: Window) -> int | None:
    return window.bucket.percentile(99)


def _max(window: Window) -> int | None:
    return window.bucket.max


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    return [(scale.position(value), name) for value, name in scale.ticks]


def _keys(lines: list[Line], has_strip: bool = False) -> tuple[tuple[str, str], ...]:
    keys = tuple((line.kind, line.name) for line in lines)
    return (*keys, ("failures", "failures")) if has_strip else keys


def _span(x_scale: Scale, span: tuple[int, int]) -> tuple[float, float]:
    begin, end = span
    return x_scale.position(begin), x_scale.position(end)


def _hovers(run: list[Window], x_scale: Scale) -> list[Markup]:
    """Return invisible bands with the figures of each window as tooltips."""
    return [band("hover", *_span(x_scale, window[:2]), _describe_window(window)) for window in run]


def _line(name: str, end: float, paths: tuple[str, str]) -> Line:
    return Line(name, name, end, paths[0], dots=paths[1])


def _strip(window: Window, x_scale: Scale) -> Markup:
    share = window.bucket.failures / window.bucket.requests
    return failure_mark("failures", *_span(x_scale, window[:2]), share, _describe_window(window))


def _describe_window(window: Window) -> str:
    bucket = window.bucket
    text = f"{format_ns(window.begin)} to {format_ns(window.end)}: {bucket.answered:,} answered"
    text += f" ({wording.format_rate(window.rate)})"
    if bucket.failures:
        text += f", {bucket.failures:,} failed"
    figures = {"p50": _median(window), "p99": _p99(window), "max": _max(window)}
    if bucket.answered < P99_BELOW_MAX:
        del figures["p99"]
    return text + "".join(f", {n} {format_ns(ns)}" for n, ns in figures.items() if ns is not None)


def _gap_labels(x_scale: Scale, empty: list[tuple[int, int]]) -> Iterator[Markup]:
    for gap in empty:
        begin, end = _span(x_scale, gap)
        if end - begin >= _GAP_LABEL_WIDTH:
            yield label("gap-name", (begin + end) / 2, 50, "no answers")


def _end_of_load(report: Report, x_scale: Scale) -> Iterator[Markup]:
    """Mark the end of the load, if requests in flight took notably longer."""
    duration = report.settings.get("duration")
    if isinstance(duration, int) and 100 - (at := x_scale.position(duration)) >= _MIN_TAIL:
        yield vertical_line("end-of-load", at)
        yield label("end-of-load-name", at, 96, "end of load", dx="-6")


def _describe_percentiles(histogram: Histogram) -> str:
    """Return the percentiles as text."""
    return ", ".join(
        f"{percentile_name(q)} {format_ns(ns)}"
        for q, ns in histogram.percentiles().items()
        if ns is not None
    )


def _describe_latency(report: Report, run: list[Window], empty: list[tuple[int, int]]) -> str:
    """Describe the chart for screen readers."""
    medians = sorted(ns for window in run if (ns := _median(window)) is not None)
    longest = max(ns for window in run if (ns := _max(window)) is not None)
    text = f"The median goes from {format_ns(medians[0])} to {format_ns(medians[-1])}"
    text += f", the longest time is {format_ns(longest)}"
    for begin, end in empty[:3]:
        text += f"; no answers from {format_ns(begin)} to {format_ns(end)}"
    if failed := report.results.failed():
        text += f"; {failed:,} failures"
    return text
