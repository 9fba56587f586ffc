"""The page: valid, harmless, and saying what the report says."""

from __future__ import annotations

import re

import pytest
from helpers import report_style as style
from helpers.bench_reports import MS, STARTED_AT, Run, closed_loop, failing, open_loop, stalled
from helpers.html import VOID, read, table

from simpleipc_cli.bench import format as fmt
from simpleipc_cli.bench.conditions import evaluate, parse
from simpleipc_cli.bench.histogram import HIGHEST
from simpleipc_cli.bench.page import to_html
from simpleipc_cli.bench.report import Report


def only(*times: int, path: str = "/run/x", **settings) -> Report:
    run = Run(path, **settings)
    for ns in times:
        run.respond(0, 0, ns)
    return run.report()


def refused(count: int) -> Report:
    run = Run()
    for number in range(count):
        run.fail("refused", number * 10 * MS, number * 10 * MS)
    return run.report()


REPORTS = {
    "open": stalled,
    "closed": lambda: closed_loop(seconds=2),
    "failing": failing,
    "none": lambda: Run().report(),
    "one": lambda: only(MS),
    "all failed": lambda: refused(1_000),
    "39 h": lambda: only(*[HIGHEST] * 400),
    "too long": lambda: only(*[HIGHEST + 1] * 400),
    "ns": lambda: only(*range(400)),
    "long path": lambda: only(MS, path="/very-long-name" * 300),
}


@pytest.fixture(params=REPORTS.values(), ids=REPORTS)
def report(request) -> Report:
    """One of many kinds of reports; made here, as collecting tests should not take long."""
    return request.param()


HOSTILE = [
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</code></h1><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' style='x",
    "<!--",
    "]]><![CDATA[",
    "&lt;b&gt; &amp;",
    "a\nb\x00\x1b[31m\x7f",
    "\udcff\udc80",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt",
    "\N{PILE OF POO}",
]


def evaluated(report: Report, *conditions: str):
    return evaluate([parse(text) for text in conditions], report.bounds())


def page_of(report: Report, *more):
    text = to_html(report, *more)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert text.endswith("</html>\n")
    text.encode()
    return read(text)


def texts(page, tag: str, class_: str = "") -> list[str]:
    return [element.text for element in page.all(tag, class_)]


# Valid, alone, harmless


def test_the_page_is_valid_needs_no_other_file_and_has_no_script(report):
    changes = report.compare(open_loop(seed=5))
    text = to_html(report, evaluated(report, "p99>5ms", "errors>0"), changes)
    page = read(text)  # every tag is closed
    assert [element.tag for element in page.content] == ["head", "body"]
    ids = [element["id"] for element in page if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page:
        assert element.tag not in {"script", "link", "iframe", "object", "embed", "img", "base"}
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name not in {"src", "href", "style", "srcset"}
            if name.startswith("aria-") and name != "aria-hidden":
                assert value in ids, f"{name} points to nothing"
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "javascript:" not in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_a_policy_forbids_scripts_and_connections():
    policies = [
        meta["content"]
        for meta in page_of(stalled()).all("meta")
        if "http-equiv" in meta.attributes
    ]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
def test_no_text_from_outside_becomes_markup(path):
    report, plain = (only(MS, 2 * MS, path=text) for text in (path, "plain"))
    report.started_at = path
    page, other = page_of(report), page_of(plain)
    assert [e.tag for e in page] == [e.tag for e in other]
    names = [{name for element in of for name in element.attributes} for of in (page, other)]
    assert names[0] <= names[1] | {"class"}
    shown = page.all("title")[0].text
    if path.isprintable():
        assert path in shown
        assert path in page.one("h1").text
        assert path in texts(page, "dd")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800-\udfff]", to_html(report))


def test_a_condition_is_escaped():
    text = to_html(stalled(), evaluated(stalled(), "p99<5ms"))
    assert "fail if p99&lt;5ms" in text


def test_void_elements_have_no_end_tag(report):
    html = to_html(report)
    assert not [tag for tag in VOID if f"</{tag}>" in html]


# What it says


def details(page) -> dict[str, str]:
    listed = page.one("dl", "details")
    return dict(zip(texts(listed, "dt"), texts(listed, "dd"), strict=True))


def test_the_page_says_what_was_measured_and_how():
    page = page_of(stalled())
    assert page.all("title")[0].text == f"sipc bench: {stalled().path}"
    assert page.one("h1").text == f"Load on {stalled().path}"
    assert fmt.describe_load(stalled()) in texts(page, "p", "note")
    facts = details(page)
    assert facts["started"] == STARTED_AT
    assert facts["path"] == stalled().path
    assert facts["rate offered"] == "500/s"
    assert facts["at once, at most"] == "64"
    assert facts["warm-up"] == "1.00 s"
    assert facts["timeout"] == "30.0 s"
    assert facts["measured for"] == "10.0 s"
    assert facts["requests started"] == facts["answered"] == "5,000"
    assert facts["started late"] == f"{stalled().results.late:,}"
    assert facts["never started"] == "0"
    assert facts["bytes received"] == fmt.format_size(stalled().results.bytes_in)
    assert facts["generator's processor time"] == "31 %"


def test_only_given_settings_are_listed_with_their_units():
    settings = {"concurrency": 1_000, "requests": None, "warmup": 0, "size": 0, "expects": True}
    page = page_of(only(MS, **settings))
    facts = details(page)
    assert facts["at once, at most"] == "1,000"
    assert facts["request size"] == "0 B"
    assert facts["responses checked"] == "yes"
    assert not {"requests, at most", "warm-up", "rate offered"} & set(facts)


def tiles(page) -> dict[str, tuple[str, str]]:
    found = {}
    for tile in page.one("dl", "tiles").all("div"):
        name, number, detail = (piece.text for piece in tile.content)
        found[name] = (number, detail)
    return found


def test_the_most_important_figures_come_first():
    assert tiles(page_of(stalled())) == {
        "responses per second": ("500/s", "of 500/s offered"),
        "p50": (fmt.format_figure("p50", stalled().values()["p50"]), "median response time"),
        "p99": (fmt.format_figure("p99", stalled().values()["p99"]), "1 in 100 took longer"),
        "max": (fmt.format_figure("max", stalled().values()["max"]), "longest of 5,000"),
        "failed": ("0", "of 5,000"),
    }
    found = tiles(page_of(failing()))
    assert found["failed"] == ("1,632", "10.6 % of 15,448")
    assert found["p50"][1] == "median service time"
    assert found["responses per second"] == (fmt.format_rate(failing().rate), "13,816 in 10.0 s")


def test_figures_that_need_more_responses_are_left_out():
    found = tiles(page_of(only(MS)))
    assert found["p50"] == ("-", "needs 5 responses")
    assert found["p99"] == ("-", "needs 299 responses")
    assert found["max"] == ("1.00 ms", "longest of 1")


def test_the_table_of_times_has_the_report_s_numbers(report):
    page = page_of(report)
    if not report.answered:
        assert "Times" not in texts(page, "h2")
        return
    head, *rows = table(page, "times").rows()
    kinds = ["response", "service", "connect", "first byte"][0 if report.is_open else 1 :]
    assert head == ["", *kinds]
    shown = {name: cells for name, *cells in rows}
    for kind, histogram in report.times().items():
        column = kinds.index(kind.replace("_", " "))
        for name, value in histogram.figures().items():
            assert shown[name][column] == fmt.format_figure(name, value)
        assert shown["samples"][column] == f"{histogram.count:,}"
        assert fmt.TIME_DESCRIPTIONS[kind] in texts(page, "p", "note")


@pytest.mark.parametrize(("count", "is_noted"), [(1, True), (30_000, False)])
def test_a_missing_figure_is_explained(count, is_noted):
    page = page_of(only(*[MS] * count))
    assert ("-" in [cell for row in table(page, "times").rows() for cell in row]) == is_noted
    assert (fmt.TOO_FEW_SAMPLES in texts(page, "p", "note")) == is_noted


def test_the_cells_of_every_table_have_their_heads(report):
    for found in page_of(report, (), report.compare(open_loop(seed=5))).all("table"):
        head, *rows = found.all("tr")
        assert all(cell.tag == "td" or cell["scope"] == "col" for cell in head.content)
        for row in rows:
            first, *rest = row.content
            assert (first.tag, first["scope"]) == ("th", "row")
            assert [cell.tag for cell in rest] == ["td"] * (len(head.content) - 1)


def test_failures_have_a_table_sorted_by_frequency():
    head, *rows = table(page_of(failing()), "failures").rows()
    assert head == ["failed", "count", "mean", "p50", "p99", "max"]
    assert [row[0] for row in rows] == ["refused", "timeout", "truncated", "not as expected"]
    for kind, *cells in rows:
        times = failing().results.failures[kind]
        figures = times.figures()
        names = ("mean", "p50", "p99", "max")
        assert cells == [f"{times.count:,}", *(fmt.format_figure(n, figures[n]) for n in names)]
    assert not any(cell.classes for cell in table(page_of(failing()), "failures").all("td"))
    assert "Failures" not in texts(page_of(stalled()), "h2")


def test_each_condition_is_shown_with_a_word_for_its_result():
    conditions = evaluated(stalled(), "p99>5ms", "errors>0", "p99.99>1h")
    page = page_of(stalled(), conditions)
    assert "Conditions" in texts(page, "h2")
    items = page.one("ul", "conditions").all("li")
    words = ["failed", "passed", "failed"]
    for item, word, result in zip(items, words, conditions, strict=True):
        assert item.text == f"{word} {fmt.describe_condition(result)}"
        assert item.classes == {word}


def test_each_change_since_the_baseline_is_shown_with_its_verdict():
    changes = stalled().compare(open_loop(seed=5))
    page = page_of(stalled(), (), changes)
    head, *rows = table(page, "since-the-baseline").rows()
    assert head == ["", "baseline", "now", "change", "verdict"]
    assert [row[0] for row in rows] == [name.replace("_", " ") for name in changes]
    for row, (name, change) in zip(rows, changes.items(), strict=True):
        assert row[1:] == [
            fmt.format_figure(name, change.old),
            fmt.format_figure(name, change.new),
            fmt.format_change(change.relative),
            change.verdict,
        ]
    said = texts(page, "strong")
    summed = "Mean, p50, p75, p90, p95 and p99 are worse, nothing else has changed beyond noise, "
    assert any(text.startswith(summed + "too few samples to compare p99.9") for text in said)


@pytest.mark.parametrize(
    ("now", "then", "kind"),
    [
        (stalled, lambda: open_loop(seed=5), "response"),
        (stalled, lambda: closed_loop(seconds=1), "service"),
        (lambda: closed_loop(seconds=1), stalled, "service"),
    ],
    ids=["both open", "then closed", "now closed"],
)
def test_it_says_which_times_were_compared(now, then, kind):
    page = page_of(now(), (), now().compare(then()))
    assert any(note.startswith(f"Times are {kind} times.") for note in texts(page, "p", "note"))


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        (stalled, "Nothing has changed beyond noise"),
        (lambda: closed_loop(median=20 * MS), "better"),
    ],
    ids=["the same", "slower then"],
)
def test_a_comparison_is_summed_up(baseline, said):
    page = page_of(stalled(), (), stalled().compare(baseline()))
    assert any(said in strong for strong in texts(page, "strong"))


def test_partial_reports_and_busy_generators_are_marked():
    notices = texts(page_of(failing()), "p", "notice")
    assert notices[0].startswith("Partial: the load was interrupted")
    assert notices[1].startswith(f"Warning: {fmt.SATURATED}")
    assert "97 % of the time" in notices[1]
    assert not page_of(stalled()).all("p", "notice")


def test_a_page_without_responses_says_so():
    page = page_of(refused(1_000))
    assert texts(page, "p", "notice") == ["No responses: there are no times to report."]
    assert tiles(page)["max"] == ("-", "longest of 0")
    assert [chart["aria-labelledby"] for chart in page.all("svg", "chart")] == [
        "throughput-over-time-title"
    ]
    assert not page_of(Run().report()).all("svg", "chart")


def test_there_are_three_charts_each_with_a_heading_and_a_key():
    page = page_of(stalled())
    charts = page.all("svg", "chart")
    assert len(charts) == 3
    headings = texts(page, "h2")
    for chart in charts:
        assert chart.all("title")[0].text in headings
    keys = [texts(legend, "li") for legend in page.all("ul", "legend")]
    assert keys == [["response", "service"], ["max", "p99", "p50"], ["answered", "offered"]]


def test_a_long_path_is_shortened_in_the_heading_and_whole_in_the_facts():
    path = "/start" + "/very-long-name" * 300 + "/the-end.sock"
    page = page_of(only(MS, path=path))
    for place, longest in ("title", 80), ("h1", 100):
        text = page.all(place)[0].text
        assert len(text) <= longest
        assert "/start" in text
        assert text.endswith("/the-end.sock")
    assert path in texts(page, "dd")


# Style


def luminance(colour: str) -> float:
    """WCAG 2.2, "relative luminance"."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_text_has_enough_contrast(colours):
    grounds = {"paper", "red-tint", "green-tint", "orange-tint"}
    read_on = {
        "ink": grounds,
        "quiet": {"paper"},
        "blue": {"paper"},
        "purple": {"paper"},
        "orange": {"paper", "orange-tint"},
        "red": {"paper", "red-tint"},
        "green": {"paper", "green-tint"},
    }
    assert colours.keys() == read_on.keys() | grounds | {"hairline"}
    for colour, on in read_on.items():
        for ground in on:
            ratio = contrast(colours[colour], colours[ground])
            assert ratio >= 4.5, f"{colour} on {ground}: {ratio:.2f}"


def test_every_colour_has_a_name_and_every_name_a_colour_in_light_and_dark():
    assert style.LIGHT.keys() == style.DARK.keys()
    sheet = style.SHEET
    used = set(re.findall(r"var\(--([a-z-]+)\)", sheet))
    assert used == style.LIGHT.keys()
    rules = sheet.partition("color-scheme: light dark;\n")[2]
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", rules)


def test_dark_colours_are_used_on_screens_that_prefer_them():
    assert "@media screen and (prefers-color-scheme: dark)" in style.SHEET
    metas = {meta.attributes.get("name"): meta for meta in page_of(stalled()).all("meta")}
    assert metas["color-scheme"]["content"] == "light dark"
    assert metas["viewport"]["content"] == "width=device-width, initial-scale=1"


def test_every_class_in_a_page_is_in_the_style_sheet():
    used: set[str] = set()
    for report in (stalled(), failing(), refused(1_000)):
        page = page_of(
            report, evaluated(report, "p99>5ms", "errors>0"), report.compare(open_loop(seed=5))
        )
        used |= {name for element in page for name in element.classes}
    known = set(re.findall(r"\.([a-z][a-z0-9-]*)", style.SHEET))
    assert used <= known
