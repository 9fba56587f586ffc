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

from simpleipc_cli.bench import fields
from simpleipc_cli.bench.compare import (
    Change,
    compare_means,
    compare_percentiles,
    compare_rates,
    compare_shares,
)
from simpleipc_cli.bench.histogram import PERCENTILES, Histogram, percentile_name
from simpleipc_cli.bench.load import Tally
from simpleipc_cli.bench.stats import Figures
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
    tally: Tally
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
        return self.cpu_share >= TOO_BUSY

    def times(self) -> dict[str, Histogram]:
        """What was timed, by name, in the order of reports."""
        times = {"service": self.tally.total}
        if self.is_open:
            times["response"] = self.tally.response
        return {**times, **{name: getattr(self.tally, name) for name in _PARTS}}

    def values(self) -> dict[str, float | int | None]:
        """All figures by the names that conditions use (verdict.KINDS)."""
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
            values |= Figures.of(histogram).by_name(prefix)
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
        if top.get("schema") != SCHEMA or top.get("version") != VERSION:
            raise ValueError(f"it is not a report of {SCHEMA}, version {VERSION}")
        counts = fields.mapping(top.get("counts"), "counts")
        times = fields.mapping(top.get("times"), "times")
        failures = fields.mapping(top.get("failures"), "failures")
        generator = fields.mapping(top.get("generator"), "generator")
        share = generator.get("cpu_share")
        tally = Tally(
            total=_histogram(times, "service"),
            response=_histogram(times, "response"),
            connect=_histogram(times, "connect"),
            first_byte=_histogram(times, "first_byte"),
            failures={kind: _histogram(failures, kind) for kind in failures},
            timeline=Timeline.from_json(top.get("timeline")),
            elapsed=fields.whole(top, "elapsed"),
            **{name: fields.whole(counts, name) for name in _COUNTS},
        )
        return cls(
            path=str(top.get("path")),
            started_at=str(top.get("started_at")),
            settings=dict(fields.mapping(top.get("settings"), "settings")),
            tally=tally,
            cpu_share=float(share) if isinstance(share, (int, float)) else 0.0,
            partial=bool(top.get("partial")),
        )

    def compare(self, baseline: Report) -> dict[str, Change]:
        """Each figure's change since an earlier report, with a judgement."""
        old, new = baseline.tally, self.tally
        changes = {}
        if old.elapsed and new.elapsed:
            changes["rate"] = compare_rates(
                baseline.answered, old.elapsed, self.answered, new.elapsed
            )
        changes["mean"] = compare_means(baseline.latency, self.latency)
        for q in PERCENTILES:
            changes[percentile_name(q)] = compare_percentiles(baseline.latency, self.latency, q)
        changes["error_rate"] = compare_shares(
            old.failed(),
            old.failed() + baseline.answered,
            new.failed(),
            new.failed() + self.answered,
        )
        return changes


def _described(histogram: Histogram) -> dict[str, object]:
    """Figures and histogram of one kind of time, in whole nanoseconds."""
    figures = Figures.of(histogram).by_name()
    whole = {name: None if value is None else round(value) for name, value in figures.items()}
    return {"count": histogram.count, **whole, "histogram": histogram.to_json()}


def _histogram(times: Mapping[str, object], name: str) -> Histogram:
    """The histogram of one kind of time; empty where there was none."""
    if times.get(name) is None:
        return Histogram()
    return Histogram.from_json(fields.mapping(times.get(name), name).get("histogram"))
