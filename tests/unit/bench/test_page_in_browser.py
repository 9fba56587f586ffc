"""The page in a real browser: it is shown, light and dark, narrow and wide, and fits."""

from __future__ import annotations

import json
from html import escape

import pytest
from helpers import report_style as style
from helpers.bench_reports import MS, SECOND, Run, failing, open_loop, stalled
from helpers.browser import CHROMIUM, Browser

from simpleipc_cli.bench.conditions import evaluate, parse
from simpleipc_cli.bench.format import sections
from simpleipc_cli.bench.page import to_html

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def evaluated(report, *conditions: str):
    return evaluate([parse(text) for text in conditions], report.bounds())


def full_page() -> str:
    changes = stalled().compare(open_loop(seed=5))
    return to_html(
        stalled(), sections(stalled(), evaluated(stalled(), "p99>5ms", "errors>0"), changes)
    )


def hours() -> str:
    run = Run("/run/" + "very-long-name/" * 200 + "sock", rate=0.01, concurrency=10)
    for number in range(1_000):
        due = number * 100 * SECOND
        run.respond(due, due, due + (number % 997 + 1) * 140 * SECOND)
    return to_html(run.report(), sections(run.report()))


def nanoseconds() -> str:
    run = Run("</title><script>document.write('taken over')</script>")
    for number in range(40_000):
        run.respond(number * 10_000, number * 10_000, number * 10_000 + number % 900)
    return to_html(run.report(), sections(run.report()))


def alone() -> str:
    run = Run()
    run.respond(0, 0, MS)
    return to_html(run.report(), sections(run.report()))


# Pictures


def rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour.removeprefix("#")))


@pytest.mark.parametrize(
    ("width", "height", "is_dark", "colours"),
    [(1200, 2000, False, style.LIGHT), (360, 2400, True, style.DARK)],
    ids=["light and wide", "dark and narrow"],
)
def test_the_page_has_the_light_or_dark_colours_that_the_user_prefers(
    browser, width, height, is_dark, colours
):
    html = to_html(stalled(), sections(stalled(), evaluated(stalled(), "p99>5ms", "errors>0")))
    page = browser.open(html, width, height, is_dark=is_dark)
    picture = browser.pixels(page.screenshot(), [rgb(colour) for colour in colours.values()])
    assert page.complaints == []
    assert (picture["width"], picture["height"]) == (width, height)
    assert picture["first"] == rgb(colours["paper"])
    seen = {name for name, is_seen in zip(colours, picture["seen"], strict=True) if is_seen}
    # Text and lines of each kind, including the lines of the first chart.
    assert {"paper", "ink", "quiet", "hairline", "red", "green"} <= seen
    assert {"blue", "orange"} <= seen


# Layout

# Each page in a frame of each width; what does not fit is written into the document.
MEASURE = """
const found = [];
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, where = frame.title;
  const report = (what, which) => found.push(`${where}: ${what}: ${which}`);
  const width = page.documentElement.clientWidth;
  if (page.documentElement.scrollWidth > width) report("is too wide", page.title);
  const boxes = (root, query) => [...root.querySelectorAll(query)]
    .map(element => ({element, box: element.getBoundingClientRect()}))
    .filter(({box}) => box.width > 0);
  for (const chart of page.querySelectorAll("svg.chart")) {
    const texts = boxes(chart, "text");
    if (texts.length < 4) report("has no letters", chart.textContent);
    texts.forEach(({element, box}, index) => {
      if (box.left < 0 || box.right > width) report("letters are cut", element.textContent);
      for (const {element: other, box: its} of texts.slice(index + 1))
        if (Math.min(box.right, its.right) - Math.max(box.left, its.left) > 1 &&
            Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top) > 3)
          report("letters overlap", `${element.textContent} and ${other.textContent}`);
    });
    for (const {element, box} of boxes(chart, "path.line")) {
      const plot = chart.getBoundingClientRect();
      if (box.left < plot.left - 8 || box.right > plot.right + 8 ||
          box.top < plot.top - 8 || box.bottom > plot.bottom + 8)
        report("a line leaves the plot", element.getAttribute("class"));
    }
  }
  for (const {element, box} of boxes(page, "h1, h2, p, li"))
    if (!element.closest("svg") && (box.left < 0 || box.right > width))
      report("is cut", element.textContent.slice(0, 60));
  const paper = page.defaultView.getComputedStyle(page.documentElement).backgroundColor;
  found.push(`${where}: paper ${paper}`);
}
document.body.textContent = JSON.stringify(found);
"""

WIDTHS = (360, 737, 929, 1600)


def test_the_page_fits_without_overlaps_from_a_phone_to_a_wide_screen(browser):
    pages = {
        "full": full_page(),
        "failing": to_html(failing(), sections(failing(), evaluated(failing(), "error_rate>1%"))),
        "hours": hours(),
        "nanoseconds": nanoseconds(),
        "alone": alone(),
    }
    frames = "".join(
        f'<iframe title="{name} {width}" srcdoc="{escape(html)}" width={width} height=900></iframe>'
        for name, html in pages.items()
        for width in WIDTHS
    )
    harness = (
        '<!DOCTYPE html><meta charset="utf-8"><title>harness</title>'
        f"<body>{frames}<script>addEventListener('load', () => {{{MEASURE}}});</script></body>"
    )
    page = browser.open(harness, 1600, 900, is_dark=True)
    assert page.complaints == []
    found = json.loads(page.evaluate("document.body.textContent"))
    shown = [line for line in found if ": paper " in line]
    assert len(shown) == len(pages) * len(WIDTHS)
    paper = "rgb({}, {}, {})".format(*rgb(style.DARK["paper"]))
    assert all(line.endswith(paper) for line in shown)
    assert [line for line in found if line not in shown] == []


def test_a_hostile_path_runs_no_script_in_a_browser(browser):
    page = browser.open(nanoseconds())
    assert page.complaints == []
    assert page.evaluate("document.querySelectorAll('script').length") == 0
    heading = page.evaluate("document.querySelector('h1').textContent")
    assert heading == "Load on </title><script>document.write('taken over')</script>"


def test_the_test_gets_each_error_message_of_the_browser(browser):
    broken = full_page().replace("<body>", "<body><script>1</script>", 1)
    (complaint,) = browser.open(broken).complaints
    assert "Content Security Policy" in complaint
