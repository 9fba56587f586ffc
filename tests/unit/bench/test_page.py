"""The page: valid, without scripts, and with the figures of the report."""

from __future__ import annotations

import re

import pytest
from helpers import report_style as style
from helpers.bench_reports import LONGEST, MS, Run, closed_loop, failing, open_loop, stalled
from helpers.html import VOID, read, table

from simpleipc_cli.bench.conditions import evaluate, parse
from simpleipc_cli.bench.format import sections
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
    "39 h": lambda: only(*[LONGEST] * 400),
    "too long": lambda: only(*[LONGEST + 1] * 400),
    "ns": lambda: only(*range(400)),
    "long path": lambda: only(MS, path="/very-long-name" * 300),
}


@pytest.fixture(params=REPORTS.values(), ids=REPORTS)
def report(request) -> Report:
    """One of many kinds of reports; created here to keep the collection of tests fast."""
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
    text = to_html(report, sections(report, *more))
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert text.endswith("</html>\n")
    text.encode()
    return read(text)


def texts(page, tag: str, class_: str = "") -> list[str]:
    return [element.text for element in page.all(tag, class_)]


# Valid, self-contained, without scripts


def test_the_page_is_valid_and_has_no_script_and_needs_no_other_file(report):
    changes = report.compare(open_loop(seed=5))
    text = to_html(report, sections(report, evaluated(report, "p99>5ms", "errors>0"), changes))
    page = read(text)  # every tag is closed
    assert [element.tag for element in page.content] == ["head", "body"]
    ids = [element["id"] for element in page if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page:
        assert element.tag not in {"script", "link", "iframe", "object", "embed", "img", "base"}
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name not in {"src", "href", "style", "srcset"}
            if name == "aria-labelledby":
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
def test_no_text_in_the_report_becomes_markup(path):
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
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800-\udfff]", to_html(report, sections(report))
    )


def test_the_text_of_a_condition_is_escaped():
    text = to_html(stalled(), sections(stalled(), evaluated(stalled(), "p99<5ms")))
    assert ">p99&lt;5ms<" in text


def test_void_elements_have_no_end_tag(report):
    html = to_html(report, sections(report))
    assert not [tag for tag in VOID if f"</{tag}>" in html]


# The content of the page


def test_the_page_has_every_section(report):
    conditions = evaluated(report, "p99>5ms", "errors>0", "p99.99>1h")
    changes = report.compare(open_loop(seed=5))
    page = page_of(report, conditions, changes)
    for section in sections(report, conditions, changes):
        assert section.title in texts(page, "h2")
        rows = table(page, section.title.lower().replace(" ", "-")).rows()
        expected = [section.heads, *section.rows]
        assert rows == [list(row) for row in expected if any(row)]
        assert set(section.notes) <= set(texts(page, "p", "note"))
        assert set(section.warnings) <= set(texts(page, "p", "warning"))


def test_each_verdict_has_its_colour():
    conditions = evaluated(stalled(), "p99>5ms", "errors>0", "p99.99>1998ms")
    page = page_of(stalled(), conditions, stalled().compare(open_loop(seed=5)))
    cells = {cell.text: cell.classes for cell in page.all("td")}
    assert (cells["failed"], cells["passed"], cells["worse"]) == ({"failed"}, {"passed"}, {"worse"})
    assert cells["failed: use -n 10000 or more"] == {"failed"}
    assert cells["within noise"] == set()


def test_every_table_has_header_cells_for_its_rows_and_columns(report):
    for found in page_of(report, (), report.compare(open_loop(seed=5))).all("table"):
        for row in found.all("tr"):
            first, *rest = row.content
            if first.attributes.get("scope") == "row":
                assert [cell.tag for cell in rest] == ["td"] * len(rest)
            else:
                assert first.tag == "td"
                assert all(cell["scope"] == "col" for cell in rest)


def test_a_page_without_responses_has_one_chart():
    page = page_of(refused(1_000))
    assert [chart["aria-label"] for chart in page.all("svg", "chart")] == ["Throughput over time"]
    assert not page_of(Run().report()).all("svg", "chart")


def test_there_are_three_charts_each_with_a_heading_and_a_key():
    page = page_of(stalled())
    charts = page.all("svg", "chart")
    assert len(charts) == 3
    headings = texts(page, "h2")
    for chart in charts:
        assert chart["aria-label"] in headings
    keys = [texts(legend, "li") for legend in page.all("ul", "legend")]
    assert keys == [["response", "service"], ["max", "p99", "p50"], ["answered", "offered"]]


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
def test_all_text_has_enough_contrast(colours):
    for name in colours.keys() - {"paper", "hairline"}:
        ratio = contrast(colours[name], colours["paper"])
        assert ratio >= 4.5, f"{name}: {ratio:.2f}"


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
