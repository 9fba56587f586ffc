"""A finished measurement: its figures by name, and its conversion to and from JSON.

JSON contains the complete report. Its schema:

    schema, version     "sipc-bench", 1; other versions are refused
    path, started_at    the endpoint, and the time of the start (ISO 8601)
    partial             whether the load was interrupted
    settings            as given; times in nanoseconds, sizes in bytes
    counts              started answered failed late skipped unfinished bytes_out bytes_in
    elapsed             nanoseconds measured, without the warm-up
    rate                responses per second; offered_rate: requests due per second, or null
    generator           cpu_share of the busiest process; saturated: whether that is too much
    times               service, response (null in a closed loop), connect, first_byte: each
                        count, min, mean, stddev, p50 ... p99.99, max (null: too few samples)
                        and the histogram itself, so that files can be merged and compared
    failures            the same by kind
    timeline            ended requests over time, for charts

All times are whole nanoseconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from simpleipc_cli.bench.compare import (
    Change,
    compare_means,
    compare_percentiles,
    compare_rates,
    compare_shares,
)
from simpleipc_cli.bench.generator import COUNTS, Results
from simpleipc_cli.bench.histogram import PERCENTILES, Histogram, percentile_name
from simpleipc_cli.text import json_safe

SCHEMA, VERSION = "sipc-bench", 1

MAX_CPU_SHARE = 0.9
"""A generator with a larger share of processor time may limit the rate itself."""

_COMPARED_SETTINGS = (
    *("rate", "concurrency", "processes"),
    *("data_file", "payloads", "payload_bytes", "size", "order", "expects"),
)
_PARTS = ("connect", "first_byte")
_DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError)


@dataclass(frozen=True)
class Settings:
    """The load as given on the command line; times in nanoseconds, None: no limit."""

    concurrency: int = 1
    processes: int = 1
    requests: int | None = None
    duration: int | None = None
    rate: float | None = None
    """Requests due per second; None in a closed loop."""
    warmup: int = 0
    timeout: int | None = None
    size: int = 0
    """Bytes of payload of a request; of several payloads, the mean."""
    payloads: int = 1
    """Number of payloads, which are sent in turn."""
    payload_bytes: int | None = None
    """Bytes of several payloads together."""
    data_file: str | None = None
    """The name of the file with several payloads; see text.json_safe()."""
    order: str | None = None
    """The order of several payloads, in words."""
    expects: bool = False
    """Whether responses were compared with an expected response."""


@dataclass
class Report:
    """One measurement."""

    path: str
    started_at: str
    settings: Settings
    results: Results
    partial: bool = False

    @property
    def is_open(self) -> bool:
        """Whether requests were due on a schedule."""
        return self.settings.rate is not None

    @property
    def latency(self) -> Histogram:
        """Response times in an open loop, service times in a closed one."""
        return self.results.response if self.is_open else self.results.total

    @property
    def answered(self) -> int:
        """Requests with a complete response which, with --expect, is the expected one."""
        return self.results.total.count

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.answered / self.results.elapsed * 1e9 if self.results.elapsed else 0.0

    @property
    def generator_saturated(self) -> bool:
        """Whether the generator and not the server may have been the limit."""
        return round(self.results.cpu_share, 3) >= MAX_CPU_SHARE  # rounded as in the file

    def times(self) -> dict[str, Histogram]:
        """Return the histograms by name, in the order of the JSON."""
        times = {"service": self.results.total}
        if self.is_open:
            times["response"] = self.results.response
        return {**times, **{name: getattr(self.results, name) for name in _PARTS}}

    def values(self) -> dict[str, float | int | None]:
        """Return all figures by their names in KINDS, without the prefix "total.".

        A time figure without a part, or with the part "total", refers to the latency. In a closed
        loop a request is due when it starts, so that response.* is service.*.
        """
        ended = self.answered + self.results.failed()
        values: dict[str, float | int | None] = {
            "rate": self.rate,
            "errors": self.results.failed(),
            "error_rate": self.results.failed() / ended if ended else None,
            "requests": self.results.started,
            "late": self.results.late,
            "skipped": self.results.skipped,
            "bytes_in": self.results.bytes_in,
            "bytes_out": self.results.bytes_out,
        }
        for prefix, histogram in self._by_prefix().items():
            values |= histogram.figures(prefix)
        return values

    def bounds(self) -> dict[str, tuple[float, float] | None]:
        """Return the lowest and the highest possible value of all figures; None: unknown."""
        bounds: dict[str, tuple[float, float] | None] = {
            name: None if value is None else (value, value) for name, value in self.values().items()
        }
        for prefix, histogram in self._by_prefix().items():
            bounds |= histogram.bounds(prefix)
        return bounds

    def _by_prefix(self) -> dict[str, Histogram]:
        """Return the histograms by the prefix of their figures."""
        parts = {**self.times(), "response": self.latency}
        return {"": self.latency, **{f"{name}.": histogram for name, histogram in parts.items()}}

    def to_json(self) -> dict[str, object]:
        """Return everything for json.dumps()."""
        results = self.results
        times: dict[str, object] = {"response": None}
        times |= {name: _histogram_json(histogram) for name, histogram in self.times().items()}
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "path": json_safe(self.path),
            "started_at": self.started_at,
            "partial": self.partial,
            "settings": asdict(self.settings),
            "counts": {
                "answered": self.answered,
                "failed": results.failed(),
                **{name: getattr(results, name) for name in COUNTS},
            },
            "elapsed": results.elapsed,
            "rate": self.rate,
            "offered_rate": self.settings.rate,
            "generator": {
                "cpu_share": round(results.cpu_share, 3),
                "saturated": self.generator_saturated,
            },
            "times": times,
            "failures": {kind: _histogram_json(h) for kind, h in results.failures.items()},
            "timeline": results.timeline.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Report:
        """Convert the result of to_json() back, without the timeline.

        Check the version and the counts. Raises ValueError if they are wrong, or if the other data
        cannot be used for a comparison.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError(f"it is not a report of {SCHEMA}")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')!a:.20}, not {VERSION}")
        try:
            report = cls._read(data)
            report.values(), report.compare(report)  # raise now if a comparison would raise later
            counts = {"answered": report.answered, "failed": report.results.failed()}
            for name, count in counts.items():
                if (found := data["counts"][name]) != count:
                    raise ValueError(f"{name} is {found!a:.20}, but the histograms hold {count}")
        except _DAMAGED as error:
            raise ValueError(f"it is incomplete or damaged ({str(error)!a:.60})") from None
        return report

    @classmethod
    def _read(cls, data: dict[str, Any]) -> Report:
        def histograms(name: str) -> dict[str, Histogram]:
            found = data[name].items()
            return {
                kind: Histogram.from_json(one["histogram"])
                for kind, one in found
                if one is not None
            }

        times = histograms("times")
        results = Results(
            total=times["service"],
            response=times.get("response", Histogram()),
            connect=times["connect"],
            first_byte=times["first_byte"],
            failures=histograms("failures"),
            elapsed=data["elapsed"],
            cpu_share=float(data["generator"]["cpu_share"]),
            **{name: data["counts"][name] for name in COUNTS},
        )
        return cls(
            path=data["path"],
            started_at=data["started_at"],
            settings=Settings(**data["settings"]),
            results=results,
            partial=data["partial"],
        )

    def differences(self, baseline: Report) -> dict[str, tuple[Any, Any]]:
        """Return the old and new values of the settings that differ and change what is measured."""
        pairs = {
            name: (getattr(baseline.settings, name), getattr(self.settings, name))
            for name in _COMPARED_SETTINGS
        }
        return {name: (old, new) for name, (old, new) in pairs.items() if old != new}

    def compare(self, baseline: Report) -> dict[str, Change]:
        """Return each figure's change since a baseline.

        Times are service times, unless both loops were open.
        """
        old, new = baseline.results, self.results
        old_times, new_times = old.total, new.total
        if self.is_open and baseline.is_open:
            old_times, new_times = old.response, new.response
        changes = {}
        if old.elapsed and new.elapsed:
            changes["rate"] = compare_rates(
                baseline.answered, old.elapsed, self.answered, new.elapsed
            )
        changes["mean"] = compare_means(old_times, new_times)
        for q in PERCENTILES:
            changes[percentile_name(q)] = compare_percentiles(old_times, new_times, q)
        changes["error_rate"] = compare_shares(
            old.failed(),
            old.failed() + baseline.answered,
            new.failed(),
            new.failed() + self.answered,
        )
        return changes


def _histogram_json(histogram: Histogram) -> dict[str, object]:
    """Return the figures and the histogram of one kind of time, in whole nanoseconds."""
    figures = histogram.figures()
    whole = {name: None if value is None else round(value) for name, value in figures.items()}
    return {"count": histogram.count, **whole, "histogram": histogram.to_json()}
