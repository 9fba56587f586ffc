"""The charts of a page: latency by percentile, latency over time, throughput over time.

svg.py draws and computes positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil

from simpleipc_cli.bench.format import format_ns, format_rate
from simpleipc_cli.bench.histogram import Histogram, percentile_name
from simpleipc_cli.bench.html.svg import (
    Line,
    Markup,
    Scale,
    dot,
    figure,
    latency_scale,
    percentile_scale,
    point,
    rate_scale,
    time_scale,
)
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.timeline import Window, resample

_ENOUGH_FOR_RATE = 20  # requests per window; one more or less changes a rate by 5 %
_ENOUGH_FOR_P99 = 120  # requests per window; nearly all windows then have _P99_BELOW_MAX (tunable)
_P99_BELOW_MAX = 100  # in a sample of this size p99 is below the maximum; see rank_of()
_MIN_WINDOWS = 4  # of a chart over time (tunable)


def latency_by_percentile(report: Report) -> Markup | None:
    """Draw latency by percentile; None with too few responses for a median."""
    x_scale = percentile_scale(report.latency.count)
    if x_scale is None:
        return None
    timed = {"latency": ("response" if report.is_open else "service", report.latency)}
    if report.is_open:
        timed["service"] = ("service", report.results.total)
    last = ceil(x_scale.high / 100 * report.latency.count)
    ends = {kind: histogram.value_at(max(1, last)) for kind, (_, histogram) in timed.items()}
    y_scale = latency_scale(min(h.min or 0 for _, h in timed.values()), max(ends.values()))
    lines, dots, described = [], [], []
    for kind, (name, histogram) in timed.items():
        path = _percentile_path(histogram, x_scale, y_scale)
        lines.append(Line(kind, name, y_scale.position(ends[kind]), path))
        for q, _ in x_scale.ticks[1:]:
            ns = histogram.percentile(q) or 0
            text = f"{name} {percentile_name(q)}: {format_ns(ns)}"
            dots.append(dot(kind, x_scale.position(q), y_scale.position(ns), text))
            described.append(text)
    caption = (
        "Each further nine has the same width: 1 of 100 responses lies to the right of 99 %."
        f" The line ends where {report.answered:,} responses are too few; the longest took"
        f" {format_ns(report.latency.max or 0)}."
    )
    return figure(
        "Latency by percentile", ", ".join(described), caption, (x_scale, y_scale), lines, dots
    )


def latency_over_time(report: Report) -> Markup | None:
    """Draw median, 99th percentile and maximum of each window; None with too few windows.

    Without the 99th percentile if most windows have too few responses for it.
    """
    windows = resample(report.results.timeline, report.results.elapsed, _ENOUGH_FOR_P99)
    buckets = [window.bucket for window in windows if window.bucket.answered]
    if not buckets or len(windows) < _MIN_WINDOWS:
        return None
    counts = sorted(bucket.answered for bucket in buckets)
    has_p99 = counts[len(counts) // 2] >= _P99_BELOW_MAX
    caption = f"Each point stands for the responses within {_width(windows)}."
    if not has_p99:
        caption += " They are too few for a 99th percentile."
    x_scale = time_scale(windows[-1].end)
    medians = sorted(bucket.percentile(50) or 0 for bucket in buckets)
    longest = max(bucket.max or 0 for bucket in buckets)
    y_scale = latency_scale(medians[0], longest)
    lines = []
    for name, q in {"max": 100, **({"p99": 99} if has_p99 else {}), "p50": 50}.items():
        values = [_value(window, q) for window in windows]
        end = next(value for value in reversed(values) if value is not None)
        path = _line_path(windows, values, x_scale, y_scale)
        lines.append(Line(name, name, y_scale.position(end), path))
    description = (
        f"The median goes from {format_ns(medians[0])} to {format_ns(medians[-1])},"
        f" the longest time is {format_ns(longest)}"
    )
    return figure("Latency over time", description, caption, (x_scale, y_scale), lines)


def throughput_over_time(report: Report) -> Markup | None:
    """Draw responses, failures and offered requests per second; None with too few windows."""
    windows = resample(report.results.timeline, report.results.elapsed, _ENOUGH_FOR_RATE)
    if len(windows) < _MIN_WINDOWS:
        return None
    answered = [window.rate(window.bucket.answered) for window in windows]
    failed = [window.rate(window.bucket.failures) for window in windows]
    offered = report.settings.rate
    x_scale = time_scale(windows[-1].end)
    y_scale = rate_scale(max(*answered, *failed, offered or 0))
    drawn = {"rate": ("answered", answered)}
    if offered is not None:
        drawn["offered"] = ("offered", [offered] * len(windows))
    if any(failed):
        drawn["failed"] = ("failed", failed)
    lines = [
        Line(
            kind,
            name,
            y_scale.position(rates[-1]),
            _step_path(windows, rates, x_scale, y_scale),
            has_area=kind == "rate",
        )
        for kind, (name, rates) in drawn.items()
    ]
    description = ", ".join(
        f"{format_rate(min(rates))} to {format_rate(max(rates))} {name}"
        for name, rates in drawn.values()
    )
    caption = f"Responses per second, in steps of {_width(windows)}."
    return figure("Throughput over time", description, caption, (x_scale, y_scale), lines)


def _width(windows: Sequence[Window]) -> str:
    return format_ns(windows[0].end - windows[0].begin)


def _value(window: Window, q: float) -> int | None:
    return window.bucket.max if q == 100 else window.bucket.percentile(q)


def _percentile_path(histogram: Histogram, along: Scale, up: Scale) -> str:
    """Return the path of a histogram by percentile, up to the end of its scale.

    In steps, which follow from the nearest rank. Steps narrower than a thousandth of the plot
    are joined: there may be 20,000.
    """
    lowest, highest = histogram.min or 0, histogram.max or 0
    points = [point(0, up.position(lowest))]
    seen, x = 0, 0.0
    for low, high, count in histogram.buckets():
        seen += count
        y = up.position(min(max((low + high) // 2, lowest), highest))
        end = along.position(100 * seen / histogram.count)
        if end - x >= 0.1 or end >= 100:
            points += [point(x, y), point(end, y)]
            x = end
        if end >= 100:
            break
    return f"M{'L'.join(points)}"


def _line_path(
    windows: Sequence[Window], values: Sequence[int | None], along: Scale, up: Scale
) -> str:
    """Return the path through a value at the middle of each window, with gaps."""
    path = ""
    pairs = zip(windows, values, strict=True)
    for is_gap, group in groupby(pairs, lambda pair: pair[1] is None):
        if not is_gap:
            points = [
                point(along.position((window.begin + window.end) / 2), up.position(value or 0))
                for window, value in group
            ]
            path += f"M{'L'.join(points)}" + ("h0" if len(points) == 1 else "")
    return path


def _step_path(windows: Sequence[Window], values: Sequence[float], along: Scale, up: Scale) -> str:
    """Return the path of a value that is constant within each window."""
    points = [
        point(along.position(at), up.position(value))
        for window, value in zip(windows, values, strict=True)
        for at in (window.begin, window.end)
    ]
    return f"M{'L'.join(points)}"
