"""The page in a real browser: it is shown, light and dark, narrow and wide, and fits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import zlib
from html import escape

import pytest
from helpers.bench_reports import MS, SECOND, Run, failing, open_loop, stalled

from simpleipc_cli.bench import conditions as verdict
from simpleipc_cli.bench.html import style
from simpleipc_cli.bench.html.page import to_html

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

# A browser of its own, that reaches out for nothing.
OPTIONS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync
    --hide-scrollbars --enable-logging=stderr
""".split()
DARK = "--blink-settings=preferredColorScheme=0"


def browse(folder, html: str, *options: str) -> str:
    """Open a page and wait for the end; standard output. It may not complain."""
    page = folder / "page.html"
    page.write_text(html)
    process = subprocess.Popen(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    assert process.returncode == 0, errors
    # What scripts and policies have to say; the rest is about the machine.
    complaints = re.findall(r"^.*CONSOLE.*$", errors, re.M)
    assert not complaints, "\n".join(complaints)
    return output


def judged(report, *conditions: str):
    return verdict.judge([verdict.parse(text) for text in conditions], report.values())


def full_page() -> str:
    changes = stalled().compare(open_loop(seed=5))
    return to_html(stalled(), judged(stalled(), "p99>5ms", "errors>0"), changes)


def hours() -> str:
    run = Run("/run/" + "very-long-name/" * 200 + "sock", rate=0.01, concurrency=10)
    for number in range(1_000):
        due = number * 100 * SECOND
        run.answer(due, due, due + (number % 997 + 1) * 140 * SECOND)
    return to_html(run.report())


def nanoseconds() -> str:
    run = Run("</title><script>document.write('taken over')</script>")
    for number in range(40_000):
        run.answer(number * 10_000, number * 10_000, number * 10_000 + number % 900)
    return to_html(run.report())


def alone() -> str:
    run = Run()
    run.answer(0, 0, MS)
    return to_html(run.report())


# Pictures


def decoded(png: bytes) -> tuple[int, int, set[bytes], bytes]:
    """Width, height, all colours of a PNG of 8-bit RGB, and its first one. Its checksums hold."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, head = 8, b"", ()
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            kind + body
        )
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            data += body
        at += 12 + length
    width, height, *rest = head
    assert rest == [8, 2, 0, 0, 0]
    size = 3 * width
    raw = zlib.decompress(data)
    row, colours, first = bytes(size), set(), b""
    for start in range(0, height * (size + 1), size + 1):
        row = unfiltered(raw[start], raw[start + 1 : start + 1 + size], row)
        colours |= {row[x : x + 3] for x in range(0, size, 3)}
        first = first or row[:3]
    return width, height, colours, first


def unfiltered(kind: int, line: bytes, above: bytes) -> bytes:
    """A row of pixels, by the PNG specification's section 9.2."""
    if kind == 0:
        return line
    if kind == 2:
        return bytes((a + b) & 255 for a, b in zip(line, above, strict=True))
    row = bytearray(3) + line
    corner = bytes(3) + above
    for x in range(3, len(row)):
        left, up = row[x - 3], corner[x]
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            guess = paeth(left, up, corner[x - 3])
        row[x] = (row[x] + guess) & 255
    return bytes(row[3:])


def paeth(left: int, up: int, corner: int) -> int:
    distance = left + up - corner
    return min((left, up, corner), key=lambda guess: abs(distance - guess))


def rgb(colour: str) -> bytes:
    return bytes.fromhex(colour.removeprefix("#"))


@pytest.mark.parametrize(
    ("width", "height", "options", "colours"),
    [(1200, 700, [], style.LIGHT), (360, 900, [DARK], style.DARK)],
    ids=["light and wide", "dark and narrow"],
)
def test_it_is_shown_in_the_colours_that_were_asked_for(folder, width, height, options, colours):
    picture = folder / "picture.png"
    browse(
        folder,
        to_html(stalled(), judged(stalled(), "p99>5ms", "errors>0")),
        f"--window-size={width},{height}",
        f"--screenshot={picture}",
        *options,
    )
    shown = decoded(picture.read_bytes())
    assert shown[:2] == (width, height)
    assert shown[3] == rgb(colours["paper"])
    seen = {name for name, colour in colours.items() if rgb(colour) in shown[2]}
    # Letters and lines of each kind, the lines of the first chart among them.
    assert {"paper", "ink", "quiet", "hairline", "red", "green", "red-tint", "green-tint"} <= seen
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
    for (const {element, box} of boxes(chart, "path.line, path.dot")) {
      const plot = chart.getBoundingClientRect();
      if (box.left < plot.left - 8 || box.right > plot.right + 8 ||
          box.top < plot.top - 8 || box.bottom > plot.bottom + 8)
        report("a line leaves the plot", element.getAttribute("class"));
    }
  }
  for (const {element, box} of boxes(page, "h1, h2, p, dt, dd, li, .tiles > div"))
    if (!element.closest("svg") && (box.left < 0 || box.right > width))
      report("is cut", element.textContent.slice(0, 60));
  for (const {element} of boxes(page, ".tiles > div"))
    if (element.scrollWidth > element.clientWidth) report("a number is cut", element.textContent);
  const paper = page.defaultView.getComputedStyle(page.documentElement).backgroundColor;
  found.push(`${where}: paper ${paper}`);
}
document.body.textContent = JSON.stringify(found);
"""

WIDTHS = (360, 737, 929, 1600)


def test_everything_fits_and_nothing_overlaps_from_a_phone_to_a_wide_screen(folder):
    pages = {
        "full": full_page(),
        "failing": to_html(failing(), judged(failing(), "error_rate>1%")),
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
    output = browse(folder, harness, "--dump-dom", DARK)
    found = json.loads(re.search(r"<body>(\[.*\])</body>", output, re.S)[1])
    shown = [line for line in found if ": paper " in line]
    assert len(shown) == len(pages) * len(WIDTHS)
    paper = "rgb({}, {}, {})".format(*rgb(style.DARK["paper"]))
    assert all(line.endswith(paper) for line in shown)
    assert [line for line in found if line not in shown] == []


def test_a_hostile_path_does_nothing_in_a_browser(folder):
    output = browse(folder, nanoseconds(), "--dump-dom")
    assert "&lt;script&gt;" in output
    assert "<script" not in output
    assert re.search(r"<h1>Load on <code>&lt;/title&gt;&lt;script&gt;", output)


def test_what_a_browser_complains_about_is_seen(folder):
    broken = full_page().replace("<body>", "<body><script>1</script>", 1)
    with pytest.raises(AssertionError, match="Content Security Policy"):
        browse(folder, broken, "--dump-dom")
