"""A report as tables for other programs: CSV for spreadsheets and awk, Markdown for GitHub.

Pure functions from a report to text.

The CSV has three columns, `figure,unit,value`, and a line for each figure, so that one
figure is one line wherever it stands: `awk -F, '$1 == "p99" { print $3 }'`. Figures have
the names that conditions use (verdict.KINDS), and more of the same kind; the first lines
are the same in each report, and those of failures' times follow where there were any. A
value that cannot be given, from too few samples, is empty. Units: ns (whole nanoseconds),
1/s, ratio (0 to 1), count, bytes, bool, and text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from simpleipc_cli.bench import format as wording
from simpleipc_cli.bench import sections as summary
from simpleipc_cli.bench.compare import Change
from simpleipc_cli.bench.conditions import COUNT, KINDS, RATE, SHARE, SIZE, TIME, ConditionResult
from simpleipc_cli.bench.generator import FAILURES
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.bench.html.markup import printable
from simpleipc_cli.bench.report import Report
from simpleipc_cli.bench.stats import SummaryStats
from simpleipc_cli.bench.units import format_ns

_UNITS = {TIME: "ns", RATE: "1/s", SHARE: "ratio", COUNT: "count", SIZE: "bytes"}
_FORMULA = ("=", "+", "-", "@")

_Value = str | float | int | None
_Line = tuple[str, str, _Value]


def to_csv(report: Report) -> str:
    """The figures, one a line; lines end with a line feed alone, as awk takes them."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(("figure", "unit", "value"))
    for name, unit, value in _lines(report):
        writer.writerow((name, unit, "" if value is None else _plain(unit, value)))
    return written.getvalue()


def _lines(report: Report) -> Iterator[_Line]:
    """Figure, unit and value, in the order of the file."""
    tally = report.tally
    yield "path", "text", _harmless(printable(report.path))
    yield "started_at", "text", printable(report.started_at)
    yield "partial", "bool", report.partial
    yield "elapsed", "ns", tally.elapsed
    yield "offered_rate", "1/s", report.offered_rate
    yield "cpu_share", "ratio", round(report.cpu_share, 3)
    yield "generator_is_limit", "bool", report.is_limit
    yield "answered", "count", report.answered
    yield "unfinished", "count", tally.unfinished
    values = report.values()
    for name, kind in sorted(KINDS.items(), key=lambda entry: entry[1] == TIME):
        if name in values:  # not so "total.p99", which is p99
            yield name, _UNITS[kind], values[name]
    for kind in FAILURES:
        times = tally.failures.get(kind, Histogram())
        yield f"failures.{_identifier(kind)}", "count", times.count
    for kind in FAILURES:
        if (times := tally.failures.get(kind, Histogram())).count:
            figures = SummaryStats.of(times).by_name(f"failures.{_identifier(kind)}.")
            yield from ((name, "ns", value) for name, value in figures.items())


def _plain(unit: str, value: str | float | int) -> str:
    """A value without a unit: times in whole nanoseconds, other numbers as they are."""
    if unit == "bool":
        return "true" if value else "false"
    if unit == "ns" and isinstance(value, float):
        return str(round(value))
    return str(value)


def _harmless(path: str) -> str:
    """The same path, so written that no spreadsheet takes it for a formula."""
    return f"./{path}" if path.startswith(_FORMULA) else path


def _identifier(kind: str) -> str:
    return kind.replace(" ", "_")


def to_markdown(
    report: Report,
    judged: Sequence[ConditionResult] = (),
    changes: Mapping[str, Change] | None = None,
) -> str:
    """The report as one pastes it into a pull request, in GitHub's flavour.

    `judged` are conditions, `changes` those since a baseline.
    """
    parts = [
        f"### Load on {_code(report.path)}",
        _load(report),
        *_notices(report),
        *_conditions(judged),
        *(_compared(report, changes) if changes else ()),
        *_times(report),
        *_failures(report),
        _counts(report),
    ]
    return "\n\n".join(parts) + "\n"


def _load(report: Report) -> str:
    share = ""
    if failed := report.tally.failed():
        lost = wording.figure("error_rate", report.values()["error_rate"])
        share = f", **{failed:,} failed** ({lost})"
    said = f"{wording.load(report)}; {report.started_at}"
    elapsed = format_ns(report.tally.elapsed)
    answered = f"**{wording.rate(report.rate)}**: {report.answered:,} in {elapsed}{share}"
    return f"{answered}\n\n{_escaped(said)}"


def _notices(report: Report) -> Iterator[str]:
    for what, said in summary.notices(report):
        yield f"> **{what}:** {_escaped(said)}"


def _conditions(judged: Sequence[ConditionResult]) -> Iterator[str]:
    if judged:
        yield "\n".join(
            f"- {'❌' if judgement.fails else '✅'} {_escaped(wording.judgement(judgement))}"
            for judgement in judged
        )


def _compared(report: Report, changes: Mapping[str, Change]) -> Iterator[str]:
    said = summary.changed(changes)
    times = summary.compared_times(report, changes)
    yield f"**Since the baseline:** {_escaped(said)} ({times} times)."
    rows = [
        (
            name,
            wording.figure(name, change.old),
            wording.figure(name, change.new),
            wording.change(change.relative),
            f"**{change.verdict}**" if change.verdict in {"worse", "better"} else change.verdict,
        )
        for name, change in changes.items()
    ]
    yield _table(("", "baseline", "now", "change", "judgement"), rows, words=1)


def _times(report: Report) -> Iterator[str]:
    """All that was timed, side by side, and what it is."""
    if not report.answered:
        return
    times = summary.timed(report)
    kinds = list(times)
    figures = {kind: SummaryStats.of(times[kind]).by_name() for kind in kinds}
    rows = [
        (name, *(wording.figure(name, figures[kind][name]) for kind in kinds))
        for name in figures[kinds[0]]
    ]
    rows.append(("samples", *(f"{times[kind].count:,}" for kind in kinds)))
    yield _table(("", *(kind.replace("_", " ") for kind in kinds)), rows)
    yield "\n".join(f"- {_escaped(wording.TIMES[kind])}" for kind in kinds[: 1 + report.is_open])


def _failures(report: Report) -> Iterator[str]:
    rows = []
    for kind, times in summary.failures(report).items():
        figures = SummaryStats.of(times).by_name()
        said = (wording.figure(name, figures[name]) for name in summary.FAILURE_FIGURES)
        rows.append((kind, f"{times.count:,}", *said))
    if rows:
        yield _table(("failed", "count", *summary.FAILURE_FIGURES), rows)


def _counts(report: Report) -> str:
    """The rest, where it is out of the way."""
    said = (f"{name}: {_code(value)}" for name, value in _details(report).items())
    return "<details><summary>Settings and counts</summary>\n\n- {}\n\n</details>".format(
        "\n- ".join(said)
    )


def _details(report: Report) -> dict[str, str]:
    return summary.settings(report) | summary.counts(report)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 0) -> str:
    """A table: the first column and the last `words` ones to the left, the others to the right."""
    numbers = len(heads) - 1 - words
    lines = [heads, (":--", *["--:"] * numbers, *[":--"] * words), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(text: str) -> str:
    """Text as code, in which GitHub sees no markup, no mention and no issue number."""
    text = printable(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    # One space at both ends is taken away, and has to be there next to a backtick.
    padding = " " if longest or text != text.strip() or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _escaped(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", printable(text))
