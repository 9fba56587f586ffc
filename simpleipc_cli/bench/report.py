"""A finished measurement: what it says, as JSON (and back) and as figures by name.

The JSON is the record; every other form is made from the same object. Its schema:

    schema, version     "sipc-bench", 1; another version is refused
    path, started_at    what was measured, and when (ISO 8601)
    partial             whether the load was broken off
    settings            as given; times in nanoseconds
    counts              started answered failed late skipped unfinished bytes_out bytes_in
    elapsed             nanoseconds measured, the warm-up not among them
    rate                answers a second; offered_rate: requests due a second, or null
    generator           cpu_share: how busy the busiest process was; is_limit: too busy
    times               service, response (null in a closed loop), connect, first_byte: each
                        count, min, mean, stddev, p50 ... p99.99, max (null: too few samples)
                        and the histogram itself, so that files can be merged and compared
    failures            by kind, the same
    timeline            what ended when, for charts

All times are whole nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from simpleipc_cli.bench import fields
from simpleipc_cli.bench.compare import (
    Change,
    compare_means,
    compare_percentiles,
    compare_rates,
    compare_shares,
)
from simpleipc_cli.bench.generator import FAILURES, Results
from simpleipc_cli.bench.histogram import PERCENTILES, Histogram, percentile_name
from simpleipc_cli.bench.stats import SummaryStats
from simpleipc_cli.bench.timeline import Timeline

SCHEMA, VERSION = "sipc-bench", 1

TOO_BUSY = 0.9
"""A generator that is on a processor for this share of its time may itself be the limit."""

_COUNTS = ("started", "late", "skipped", "unfinished", "bytes_out", "bytes_in")
_PARTS = ("connect", "first_byte")


@dataclass
class Report:
    """One measurement."""

    path: str
    started_at: str
    settings: dict[str, object]
    tally: Results
    cpu_share: float
    partial: bool = False

    @property
    def is_open(self) -> bool:
        """Whether requests were due on a schedule."""
        return self.settings.get("rate") is not None

    @property
    def latency(self) -> Histogram:
        """What "latency" means here: response time in an open loop, service time in a closed."""
        return self.tally.response if self.is_open else self.tally.total

    @property
    def answered(self) -> int:
        """Requests with a complete and, where that was asked for, the right answer."""
        return self.tally.total.count

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.tally.elapsed * 1e9 if self.tally.elapsed else 0.0

    @property
    def offered_rate(self) -> float | None:
        """Requests due a second; None in a closed loop."""
        rate = self.settings.get("rate")
        return float(rate) if isinstance(rate, (int, float)) else None

    @property
    def is_limit(self) -> bool:
        """Whether what was measured may be the generator and not the server."""
        return round(self.cpu_share, 3) >= TOO_BUSY  # as the file has it

    def times(self) -> dict[str, Histogram]:
        """What was timed, by name, in the order of reports."""
        times = {"service": self.tally.total}
        if self.is_open:
            times["response"] = self.tally.response
        return {**times, **{name: getattr(self.tally, name) for name in _PARTS}}

    def values(self) -> dict[str, float | int | None]:
        """All figures by the names that conditions use: those of verdict.KINDS without "total.".

        A figure of no part, and of the total, is one of the latency. In a closed loop a
        request is due when it starts, so there response.* is service.*.
        """
        ended = self.answered + self.tally.failed()
        values: dict[str, float | int | None] = {
            "rate": self.rate,
            "errors": self.tally.failed(),
            "error_rate": self.tally.failed() / ended if ended else None,
            "requests": self.tally.started,
            "late": self.tally.late,
            "skipped": self.tally.skipped,
            "bytes_in": self.tally.bytes_in,
            "bytes_out": self.tally.bytes_out,
        }
        parts = {**self.times(), "response": self.latency}
        for prefix, histogram in ("", self.latency), *((f"{n}.", h) for n, h in parts.items()):
            values |= SummaryStats.of(histogram).by_name(prefix)
        return values

    def to_json(self) -> dict[str, object]:
        """All of it, for json.dumps()."""
        tally = self.tally
        times: dict[str, object] = {"response": None}
        times |= {name: _described(histogram) for name, histogram in self.times().items()}
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "path": self.path,
            "started_at": self.started_at,
            "partial": self.partial,
            "settings": self.settings,
            "counts": {
                "answered": self.answered,
                "failed": tally.failed(),
                **{name: getattr(tally, name) for name in _COUNTS},
            },
            "elapsed": tally.elapsed,
            "rate": self.rate,
            "offered_rate": self.offered_rate,
            "generator": {"cpu_share": round(self.cpu_share, 3), "is_limit": self.is_limit},
            "times": times,
            "failures": {kind: _described(times) for kind, times in tally.failures.items()},
            "timeline": tally.timeline.to_json(),
        }

    @classmethod
    def from_json(cls, data: object) -> Report:
        """A report read back. Raises ValueError that says what is wrong with the data."""
        top = fields.mapping(data, "the report")
        if top.get("schema") != SCHEMA:
            raise ValueError(f"it is no report of {SCHEMA}: schema is {top.get('schema')!a:.40}")
        if (version := fields.whole(top, "version")) != VERSION:
            raise ValueError(f"it is of version {version}, not {VERSION}")
        counts = fields.mapping(top.get("counts"), "counts")
        times = fields.mapping(top.get("times"), "times")
        failures = fields.mapping(top.get("failures"), "failures")
        for kind in failures.keys() - set(FAILURES):
            raise ValueError(f"there is no failure of the kind {kind!a:.40}")
        settings = dict(fields.mapping(top.get("settings"), "settings"))
        if settings.get("rate") is not None:
            _number(settings, "rate")
        report = cls(
            path=_text(top, "path"),
            started_at=_text(top, "started_at"),
            settings=settings,
            tally=Results(
                total=_histogram(times, "service"),
                response=Histogram()
                if times.get("response") is None
                else _histogram(times, "response"),
                connect=_histogram(times, "connect"),
                first_byte=_histogram(times, "first_byte"),
                failures={kind: _histogram(failures, kind) for kind in failures},
                timeline=Timeline.from_json(top.get("timeline")),
                elapsed=fields.whole(top, "elapsed"),
                **{name: fields.whole(counts, name) for name in _COUNTS},
            ),
            cpu_share=_number(fields.mapping(top.get("generator"), "generator"), "cpu_share"),
            partial=_truth(top, "partial"),
        )
        report._check(counts)
        return report

    def _check(self, counts: Mapping[str, object]) -> None:
        """Raise ValueError if the counts, as they were read, contradict the times."""
        tally = self.tally
        found = {"answered": self.answered, "failed": tally.failed()}
        found["started"] = sum(found.values()) + tally.unfinished
        for name, count in found.items():
            if fields.whole(counts, name) != count:
                raise ValueError(f"{name} is {counts[name]}, but the rest makes it {count}")
        for name, histogram in self.times().items():
            if histogram.count != self.answered:
                raise ValueError(f"{name} has {histogram.count} times for {self.answered} answers")
        ended = sum(slot.requests for slot in tally.timeline.slots)
        if ended != self.answered + tally.failed():
            raise ValueError(f"the timeline has {ended} requests, but that many did not end")

    def compare(self, baseline: Report) -> dict[str, Change]:
        """Each figure's change since an earlier report, with a judgement.

        Where one of the two was a closed loop, times are service times: like with like.
        """
        old, new = baseline.tally, self.tally
        then, now = old.total, new.total
        if self.is_open and baseline.is_open:
            then, now = old.response, new.response
        changes = {}
        if old.elapsed and new.elapsed:
            changes["rate"] = compare_rates(
                baseline.answered, old.elapsed, self.answered, new.elapsed
            )
        changes["mean"] = compare_means(then, now)
        for q in PERCENTILES:
            changes[percentile_name(q)] = compare_percentiles(then, now, q)
        changes["error_rate"] = compare_shares(
            old.failed(),
            old.failed() + baseline.answered,
            new.failed(),
            new.failed() + self.answered,
        )
        return changes


def _described(histogram: Histogram) -> dict[str, object]:
    """Figures and histogram of one kind of time, in whole nanoseconds."""
    figures = SummaryStats.of(histogram).by_name()
    whole = {name: None if value is None else round(value) for name, value in figures.items()}
    return {"count": histogram.count, **whole, "histogram": histogram.to_json()}


def _histogram(times: Mapping[str, object], name: str) -> Histogram:
    """The histogram of one kind of time."""
    described = fields.mapping(times.get(name), name)
    try:
        return Histogram.from_json(described.get("histogram"))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _text(data: Mapping[str, object], name: str) -> str:
    if not isinstance(value := data.get(name), str):
        raise ValueError(f"{name} is {value!a:.40}, not a text")
    return value


def _truth(data: Mapping[str, object], name: str) -> bool:
    if not isinstance(value := data.get(name), bool):
        raise ValueError(f"{name} is {value!a:.40}, not true or false")
    return value


def _number(data: Mapping[str, object], name: str) -> float:
    """A number from 0 up that is finite: Python reads NaN and Infinity, too."""
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < inf:
        raise ValueError(f"{name} is {value!a:.40}, not a number from 0 up")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is larger than anything that was ever measured") from None
