"""`sipc bench`: options in, a measurement, its report out."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any

import click

from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import Condition, ConditionResult, judge, parse
from simpleipc_cli.bench.format import judgement
from simpleipc_cli.bench.generator import SECOND, LoadPlan
from simpleipc_cli.bench.html.page import to_html
from simpleipc_cli.bench.measure import Interrupted, measure
from simpleipc_cli.bench.processes import Progress
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.tables import to_csv, to_markdown
from simpleipc_cli.cli.bench.live import screen
from simpleipc_cli.cli.bench.text import print_report
from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode
from simpleipc_cli.cli.options import DURATION, SIZE, option_given, path_argument, resolve_endpoint
from simpleipc_cli.cli.stdio import Output, open_output, read_whole
from simpleipc_cli.client import look
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import ExpectationFailed, NotListening, PathNotFound, SipcError

Render = Callable[[Report, Sequence[ConditionResult], Mapping[str, Change] | None], str]

_DEFAULT_DURATION = 10.0  # seconds
_AT_ONCE_BY_RATE = 100  # requests in flight in an open loop, at will: a stall should not block it
_LOWEST_RATE, _HIGHEST_RATE = 0.001, 1e9  # what whole nanoseconds and common sense allow
_LOOK_TIMEOUT = 1.0  # seconds; what send allows a busy server by default
_STOP_SIGNALS = [
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # as far as the system has them
    if name in signal.Signals.__members__
]

EXAMPLES = """\b
Examples:
  sipc bench demo.sock -c 4 -z 10s -d ping
  sipc bench demo.sock -R 100 --html report.html --fail-if 'p99>5ms'"""


class FailIf(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A condition, such as p99>5ms."""

    name = "expr"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Condition:
        """See bench/verdict.py for the grammar."""
        try:
            return value if isinstance(value, Condition) else parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Requests a second."""

    name = "rate"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Take 500, 0.5 and the like."""
        text = str(value)
        rate = float(text) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text, re.ASCII) else nan
        if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:  # which nan is not, either
            self.fail(f"{value!r} is no rate: give requests a second, such as 500", param, ctx)
        return rate


@click.command(epilog=EXAMPLES)
@path_argument
@click.option(
    "-c",
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 100_000),
    help=f"Have at most N requests in flight.  [default: 1; {_AT_ONCE_BY_RATE} with --rate]",
)
@click.option("-n", "--requests", metavar="N", type=click.IntRange(1), help="Make N requests.")
@click.option(
    "-z",
    "--duration",
    metavar="DURATION",
    type=DURATION,
    help="Go on for so long.  [default: 10s, unless there is -n]",
)
@click.option(
    "-R",
    "--rate",
    metavar="PER_SECOND",
    type=Rate(),
    help="Let requests be due on a schedule, so many a second, whatever the server does (an "
    "open loop); without it each client asks again when it has its answer (a closed loop).",
)
@click.option("-d", "--data", metavar="TEXT", help="Send TEXT, exactly as it is.  [default: empty]")
@click.option("--data-file", metavar="FILE", help="Send what is in FILE; - is standard input.")
@click.option("--size", metavar="SIZE", type=SIZE, help="Send SIZE bytes, all of them zero.")
@click.option(
    "-w",
    "--warmup",
    metavar="DURATION",
    type=DURATION,
    default="0",
    show_default=True,
    help="Make load for so long before anything is counted.",
)
@click.option(
    "--timeout",
    metavar="DURATION",
    type=DURATION,
    default="10s",
    show_default=True,
    help="Longest time for one request; also for those in flight at the end.",
)
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Make the load in N processes.",
)
@click.option(
    "--expect",
    metavar="TEXT",
    help="Count an answer as failed unless it is TEXT, a newline at its end aside.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write all of it to FILE, as JSON.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the figures to FILE, as CSV.")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Write a report in Markdown.")
@click.option("--html", "html_file", metavar="FILE", help="Write a page with charts.")
@click.option(
    "--baseline", metavar="FILE", help="Compare with an earlier report, made with --json."
)
@click.option(
    "--fail-if",
    "conditions",
    metavar="EXPR",
    type=FailIf(),
    multiple=True,
    help="End with status 10 if EXPR holds, such as p99>5ms, errors>0, rate<1000. Repeatable.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print no report; files and status say it.")
@click.pass_context
def bench(
    ctx: click.Context,
    path: str | None,
    concurrency: int | None,
    requests: int | None,
    duration: float | None,
    rate: float | None,
    data: str | None,
    data_file: str | None,
    size: int | None,
    warmup: float | None,
    timeout: float | None,
    processes: int,
    expect: str | None,
    json_file: str | None,
    csv_file: str | None,
    markdown_file: str | None,
    html_file: str | None,
    baseline: str | None,
    conditions: tuple[Condition, ...],
    quiet: bool,
) -> int:
    """Measure how fast and how steady PATH answers.

    Ctrl-C ends the load and reports what there was until then. Files appear complete or not
    at all; - is standard output, then in place of the report there. Without PATH: $SIPC_PATH,
    else sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

    EXPR is a figure, one of < <= > >= == != and a value. Figures: min mean max stddev p50 p75
    p90 p95 p99 p99.9 p99.99, also behind connect. first_byte. service. response., and rate
    errors error_rate requests late skipped bytes_in bytes_out.

    Durations: 500ms, 2s, 1m30s; sizes: 4096, 64K, 10M; 0 is no limit.
    """
    if (data is not None) + (data_file is not None) + option_given(ctx, "size") > 1:
        raise click.UsageError("give one of --data, --data-file and --size")
    if requests is None and not option_given(ctx, "duration"):
        duration = _DEFAULT_DURATION
    if data_file == baseline == "-":
        raise click.UsageError("--data-file and --baseline cannot both be standard input")
    files = _Files(json_file, csv_file, markdown_file, html_file)
    earlier = None if baseline is None else _read_baseline(baseline)
    endpoint = resolve_endpoint(path)
    plan = LoadPlan(
        path=endpoint.path,
        payload=os.fsencode(data or "") if data_file is None else read_whole(data_file),
        size=(size or 0) if option_given(ctx, "size") else None,
        concurrency=min(
            concurrency or (1 if rate is None else _AT_ONCE_BY_RATE), requests or sys.maxsize
        ),
        requests=requests,
        duration=_nanoseconds(duration),
        warmup=_nanoseconds(warmup) or 0,
        timeout=_nanoseconds(timeout),
        expect=None if expect is None else os.fsencode(expect),
    )
    _see_that_it_listens(endpoint)
    try:
        files.begin()
        # Python starts processes with `python -c`, which would look for modules in the folder
        # that we happen to be in first ("Command line and environment", Python 3.11).
        os.environ["PYTHONSAFEPATH"] = "1"
        with _Stop() as stop, screen(plan, quiet=quiet) as show:
            report = measure(plan, processes, rate, _until(stop, show))
        judged = judge(conditions, report.values())
        changes = None if earlier is None else report.compare(earlier)
        files.write(report, judged, changes)
    finally:
        files.abandon()
    if not (quiet or files.take_stdout):
        print_report(report, judged, changes)
    if stop.signal:
        return SIGNALLED + stop.signal
    return _verdict(report, judged)


def _see_that_it_listens(endpoint: Endpoint) -> None:
    """Raise EndpointError if nobody does: a load of nothing but failures tells less."""
    error = look(endpoint.locate, timeout=_LOOK_TIMEOUT).error
    if isinstance(error, (NotListening, PathNotFound)):
        error.hint = "start a server there, or wait for one with sipc probe --wait"
    if error is not None:
        raise error


def _verdict(report: Report, judged: Sequence[ConditionResult]) -> int:
    """The status that belongs to what was found. Raises SipcError."""
    if failed := [one for one in judged if one.fails]:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ExpectationFailed(f"{judgement(failed[0])}{more}", "see the report")
    if not report.answered and not report.tally.failures:
        raise SipcError("not one request was started in time", "allow more --concurrency or time")
    if not report.answered:
        kind = max(report.tally.failures, key=lambda kind: report.tally.failures[kind].count)
        raise SipcError(
            f"not one request was answered; most failed: {kind}", "try one with sipc send"
        )
    return ExitCode.OK


def _until(stop: _Stop, show: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Show the progress, until a signal comes."""

    def tell(progress: Progress) -> None:
        if stop.signal:
            raise Interrupted
        show(progress)

    return tell


class _Stop:
    """Takes note of the first signal that asks for the end; a second one ends all at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, _frame: object) -> None:
        self.signal = number
        self.__exit__()


class _Files:
    """The forms of a report that go to files; all of them appear, or what failed does not."""

    def __init__(
        self, json: str | None, csv: str | None, markdown: str | None, html: str | None
    ) -> None:
        self._renders: dict[str, Render] = {}
        self._outputs: dict[str, Output] = {}
        places: set[str] = set()
        forms = ((json, _to_json), (csv, _to_csv), (markdown, to_markdown), (html, to_html))
        for name, render in forms:
            if name is None:
                continue
            place = os.path.realpath("/dev/stdout" if name == "-" else name)
            if place in places:
                raise click.UsageError(f"two forms of the report cannot both go to {name}")
            places.add(place)
            self._renders[name] = render
        self.take_stdout = "-" in self._renders

    def begin(self) -> None:
        """See that they can be written, before there is a report to lose."""
        for name in self._renders:
            self._outputs[name] = open_output(name, Deadline(None))
            self._outputs[name].begin()

    def write(
        self,
        report: Report,
        judged: Sequence[ConditionResult],
        changes: Mapping[str, Change] | None,
    ) -> None:
        """Write them all. Raises SipcError."""
        for name, render in self._renders.items():
            text = render(report, judged, changes).encode("utf-8", "surrogateescape")
            self._outputs[name].write(memoryview(text))
            self._outputs[name].complete()

    def abandon(self) -> None:
        """Leave nothing of those that are not complete."""
        for output in self._outputs.values():
            output.abandon()


def _to_json(report: Report, _judged: object, _changes: object) -> str:
    return json.dumps(report.to_json()) + "\n"


def _to_csv(report: Report, _judged: object, _changes: object) -> str:
    return to_csv(report)


def _read_baseline(name: str) -> Report:
    """An earlier report. Raises SipcError."""
    try:
        return Report.from_json(json.loads(read_whole(name)))
    except (ValueError, RecursionError) as error:
        raise SipcError(
            f"{name} cannot be compared with: {error}", "give a file made by sipc bench --json"
        ) from None


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)
