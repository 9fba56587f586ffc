"""`sipc bench`: its options, the measurement, and the files of the report."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from typing import Any

import click

from simpleipc_cli.bench.conditions import Condition, ConditionResult, evaluate, parse
from simpleipc_cli.bench.format import (
    Section,
    describe_condition,
    sections,
    to_csv,
    to_markdown,
)
from simpleipc_cli.bench.generator import SECOND, LoadPlan, Progress
from simpleipc_cli.bench.page import to_html
from simpleipc_cli.bench.processes import measure
from simpleipc_cli.bench.report import Report
from simpleipc_cli.cli.bench.terminal import live_progress, print_report
from simpleipc_cli.cli.exitcodes import SIGNALLED, ExitCode
from simpleipc_cli.cli.options import DURATION, SIZE, Verb, option_given, path_argument
from simpleipc_cli.cli.output import open_output
from simpleipc_cli.cli.parse import resolve_endpoint
from simpleipc_cli.cli.stdio import STDIN, STDOUT, Output, named_descriptor, read_whole
from simpleipc_cli.client import probe
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.endpoint import Endpoint
from simpleipc_cli.errors import (
    ExpectationFailed,
    ServerBusy,
    SipcError,
)
from simpleipc_cli.system import absolute_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.bench.payloads import Payloads

Render = Callable[[Report, Sequence[Section]], str]

_DEFAULT_DURATION = 10.0  # seconds
_OPEN_LOOP_CONCURRENCY = 100  # requests in flight; a short stall must not use up all (tunable)
_MIN_RATE, _MAX_RATE = 0.001, 1e9  # per second; intervals are whole nanoseconds
_PROBE_TIMEOUT = 1.0  # seconds; the default of send for a busy server
_STOP_SIGNALS = [
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # no system has all of them
    if name in signal.Signals.__members__
]

HELP = """Measure the rate and the latency of an endpoint.

Ctrl-C ends the load early, and the report covers the load until then. Files are written completely
or not at all; - is standard output, in place of the text report. Without PATH: $SIPC_PATH, else
sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

EXPR is a figure, one of < <= > >= == != and a value. Figures: min mean max stddev p50 p75
p90 p95 p99 p99.9 p99.99, alone or after connect. first_byte. service. response.; rate
errors error_rate requests late skipped bytes_in bytes_out.

Durations: 500ms, 2s, 1m30s; sizes: 4096, 64K, 10M; 0 means no limit.
"""

EXAMPLES = """\b
Examples:
  sipc bench demo.sock -c 4 -z 10s -d ping
  sipc bench demo.sock -R 100 --html report.html --fail-if 'p99>5ms'"""


def _condition(text: str) -> Condition:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _rate(text: str) -> float:
    rate = float(text) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text, re.ASCII) else nan
    if not _MIN_RATE <= rate <= _MAX_RATE:  # False for nan
        raise click.BadParameter(f"{text!r} is not a rate: give requests per second, such as 500")
    return rate


_count_option = partial(click.option, metavar="N")
_duration_option = partial(click.option, metavar="DURATION", type=DURATION)
_file_option = partial(click.option, metavar="FILE")
_text_option = partial(click.option, metavar="TEXT")


@click.command(cls=Verb, help=HELP, epilog=EXAMPLES)
@path_argument
@_count_option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 100_000),
    help=f"Have at most N requests in flight.  [default: 1; {_OPEN_LOOP_CONCURRENCY} with --rate]",
)
@_count_option("-n", "--requests", type=click.IntRange(1), help="Make N requests.")
@_duration_option("-z", "--duration", help="Run for DURATION.  [default: 10s, unless -n is given]")
@click.option(
    "-R",
    "--rate",
    metavar="PER_SECOND",
    type=_rate,
    help="Open loop: PER_SECOND requests are due on a fixed schedule, however slow the server "
    "is. Default is a closed loop: each client sends its next request when the response to the "
    "last one is complete.",
)
@_text_option("-d", "--data", help="Send TEXT without changes.  [default: empty]")
@_file_option("--data-file", help="Send the content of FILE; - is standard input.")
@_file_option(
    "--data-lines",
    help="Send each line of FILE in turn, and begin again after the last one; - is standard input.",
)
@_file_option("--data-null", help="Like --data-lines, for records that end with a NUL byte.")
@click.option(
    "--shuffle",
    is_flag=True,
    help="Send the lines or records in a random order, which is the same in each run.",
)
@click.option("--size", metavar="SIZE", type=SIZE, help="Send a request of SIZE zero bytes.")
@_duration_option(
    "-w",
    "--warmup",
    default="0",
    help="Run for DURATION before counting starts.",
)
@_duration_option(
    "--timeout",
    default="10s",
    help="Maximum time of one request, also of requests in flight at the end.",
)
@_count_option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    help="Generate the load in N processes.",
)
@_text_option(
    "--expect",
    help="Count a response as failed unless it is TEXT, with or without a newline at its end.",
)
@_file_option(
    "--expect-lines",
    help="Like --expect, with a line of FILE for each line or record that is sent.",
)
@_file_option("--json", "json_file", help="Write the full report to FILE as JSON.")
@_file_option("--csv", "csv_file", help="Write the figures to FILE as CSV.")
@_file_option("--markdown", "markdown_file", help="Write a report to FILE as Markdown.")
@_file_option("--html", "html_file", help="Write a page with charts to FILE.")
@_file_option("--baseline", help="Compare with the --json report of an earlier run.")
@click.option(
    "--fail-if",
    "conditions",
    metavar="EXPR",
    type=_condition,
    multiple=True,
    help="Exit with status 10 if EXPR holds, such as p99>5ms, errors>0, rate<1000. Repeatable.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print no report.")
@click.pass_context
def bench(ctx: click.Context, /, **options: Any) -> int:
    """Run `sipc bench`."""
    given = {name for name in ("duration", "size") if option_given(ctx, name)}
    return _run(_Options(**options), given)


@dataclass(frozen=True)
class _Options:
    """The options, under click's names for them; durations in seconds."""

    path: str | None
    concurrency: int | None
    requests: int | None
    duration: float | None
    rate: float | None
    data: str | None
    data_file: str | None
    data_lines: str | None
    data_null: str | None
    shuffle: bool
    size: int | None
    warmup: float | None
    timeout: float | None
    processes: int
    expect: str | None
    expect_lines: str | None
    json_file: str | None
    csv_file: str | None
    markdown_file: str | None
    html_file: str | None
    baseline: str | None
    conditions: tuple[Condition, ...]
    quiet: bool


def _run(options: _Options, given: set[str]) -> int:
    """Measure and report; return the exit status. `given`: see _plan()."""
    _check_combination(options, given)
    renders = _renders(options)
    baseline = None if options.baseline is None else _read_baseline(options.baseline)
    endpoint = resolve_endpoint(options.path)
    plan = _plan(options, given, endpoint.path)
    _check_listening(endpoint)
    plan = replace(plan, path=endpoint.path)  # where the server was found
    outputs: dict[str, Output] = {}
    with ExitStack() as stack:
        for name in renders:  # before the measurement, to report errors early
            outputs[name] = open_output(name, Deadline(None))
            stack.callback(outputs[name].close)
            outputs[name].open()
        with _stop_signals() as signals, live_progress(plan, quiet=options.quiet) as show:

            def on_progress(progress: Progress) -> bool:
                show(progress)
                return bool(signals)

            report = measure(plan, options.processes, options.rate, on_progress)
        results = evaluate(options.conditions, report.bounds())
        changes = None if baseline is None else report.compare(baseline)
        differences = None if baseline is None else report.differences(baseline)
        parts = sections(report, results, changes, differences)
        failures: list[SipcError] = []
        try:
            for name in sorted(renders, key=lambda name: name != "-"):
                text = renders[name](report, parts).encode("utf-8", "surrogateescape")
                try:
                    outputs[name].write(memoryview(text))
                    outputs[name].commit()
                except SipcError as error:
                    failures.append(error)
        finally:  # print the report even if a file cannot be written
            if not (options.quiet or "-" in renders):
                print_report(report, parts)
    if failures:
        raise failures[0]
    if signals:
        return SIGNALLED + signals[0]
    return _exit_status(report, results)


def _check_combination(options: _Options, given: set[str]) -> None:
    """Raise UsageError for options that cannot be combined."""
    sources = {
        "--data": options.data is not None,
        "--data-file": options.data_file is not None,
        "--data-lines": options.data_lines is not None,
        "--data-null": options.data_null is not None,
        "--size": "size" in given,
    }
    if sum(sources.values()) > 1:
        raise click.UsageError(f"{', '.join(sources)} exclude each other")
    if options.data_lines is None and options.data_null is None:
        for name, is_given in (
            ("--shuffle", options.shuffle),
            ("--expect-lines", options.expect_lines is not None),
        ):
            if is_given:
                raise click.UsageError(f"{name} requires --data-lines or --data-null")
    if options.expect is not None and options.expect_lines is not None:
        raise click.UsageError("--expect cannot be combined with --expect-lines")
    inputs = {
        "--data-file": options.data_file,
        "--data-lines": options.data_lines,
        "--data-null": options.data_null,
        "--expect-lines": options.expect_lines,
        "--baseline": options.baseline,
    }
    names = [name for name, file in inputs.items() if file and _is_stdin(file)]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} cannot both be standard input")


def _is_stdin(name: str) -> bool:
    return named_descriptor(name, STDIN) == STDIN


def _renders(options: _Options) -> dict[str, Render]:
    """Return the functions that create the files' contents, by file name."""
    forms: list[tuple[str | None, Render]] = [
        (options.json_file, lambda report, *_: json.dumps(report.to_json()) + "\n"),
        (options.csv_file, lambda report, *_: to_csv(report)),
        (options.markdown_file, to_markdown),
        (options.html_file, to_html),
    ]
    renders: dict[str, Render] = {}
    targets: set[str] = set()
    for name, render in forms:
        if name is None:
            continue
        if named_descriptor(name, STDOUT) == STDOUT:
            name = "-"  # noqa: PLW2901 - one name for standard output
        target = absolute_path("/dev/stdout" if name == "-" else name, os.path.realpath)
        if target in targets:
            raise click.UsageError(f"two reports cannot both be written to {name}")
        targets.add(target)
        renders[name] = render
    return renders


def _plan(options: _Options, given: set[str], path: str) -> LoadPlan:
    """Return the load plan, for all processes together.

    `given` contains "duration" and "size" if they are on the command line: their value None can
    also mean "no limit".
    """
    duration = options.duration
    if options.requests is None and "duration" not in given:
        duration = _DEFAULT_DURATION
    concurrency = options.concurrency or (1 if options.rate is None else _OPEN_LOOP_CONCURRENCY)
    payload = os.fsencode(options.data or "")
    return LoadPlan(
        path=path,
        payload=payload if options.data_file is None else read_whole(options.data_file),
        size=(options.size or 0) if "size" in given else None,
        payloads=_payloads(options),
        concurrency=min(concurrency, options.requests or sys.maxsize),
        requests=options.requests,
        duration=_nanoseconds(duration),
        warmup=_nanoseconds(options.warmup) or 0,
        timeout=_nanoseconds(options.timeout),
        expect=None if options.expect is None else os.fsencode(options.expect),
    )


def _payloads(options: _Options) -> Payloads | None:
    """Read the files of --data-lines or --data-null, and --expect-lines. Raises SipcError."""
    name, separator, what = options.data_lines, b"\n", "lines"
    if name is None:
        name, separator, what = options.data_null, b"\0", "records"
    if name is None:
        return None
    from simpleipc_cli.bench.payloads import Payloads, split_records  # noqa: PLC0415 - only for these

    data = split_records(read_whole(name), separator)
    source = "standard input" if _is_stdin(name) else name
    if not data:
        raise click.UsageError(f"{source} is empty: there is nothing to send")
    expected = None
    if options.expect_lines is not None:
        expected = split_records(read_whole(options.expect_lines), b"\n")
        if len(expected) != len(data):
            raise click.UsageError(
                f"{options.expect_lines} has {len(expected)} lines, but {source} has {len(data)}"
                f" {what}: give one line for each of them"
            )
    payloads = Payloads(source, data, expected)
    return payloads.shuffled() if options.shuffle else payloads


def _check_listening(endpoint: Endpoint) -> None:
    """Raise EndpointError if no server listens: a report with only failures would not help."""
    error = probe(endpoint.connect, timeout=_PROBE_TIMEOUT).error
    if isinstance(error, ServerBusy):
        error.hint = "try again later"  # there is no --wait here
    elif error is not None and error.hint.endswith("wait for one"):
        error.hint += " with sipc probe --wait"
    if error is not None:
        raise error


def _exit_status(report: Report, conditions: Sequence[ConditionResult]) -> int:
    """Return exit status 0, or raise SipcError for another status."""
    if failed := [one for one in conditions if one.fails]:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ExpectationFailed(f"{describe_condition(failed[0])}{more}", "see the report")
    if not report.answered and not report.results.failures:
        raise SipcError("no request was started in time", "raise --concurrency or --duration")
    if not report.answered:
        kind = max(report.results.failures, key=lambda kind: report.results.failures[kind].count)
        raise SipcError(
            f"no request was answered; most frequent failure: {kind}", "test with sipc send"
        )
    return ExitCode.OK


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Provide the list of the signals that came; a second signal has its default action."""
    came: list[int] = []
    handlers: dict[int, Any] = {}

    def restore() -> None:
        while handlers:
            signal.signal(*handlers.popitem())

    def on_signal(number: int, _frame: object) -> None:
        came.append(number)
        restore()

    for number in _STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            handlers[number] = signal.signal(number, on_signal)
    try:
        yield came
    finally:
        restore()


def _read_baseline(name: str) -> Report:
    """Read an earlier report. Raises SipcError."""
    try:
        return Report.from_json(json.loads(read_whole(name)))
    except (ValueError, RecursionError) as error:
        raise SipcError(
            f"cannot use the baseline {name}: {error}", "give a file written by sipc bench --json"
        ) from None


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)
