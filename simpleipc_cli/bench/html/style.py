"""How a page looks: one sheet of CSS, for screens from a phone's to a wide one, and paper.

Colours are named once and given twice, for light and for dark. All that is read has a
contrast of 4.5 to 1 at least in both, lines have 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11). Hues
are those of Okabe and Ito ("Color Universal Design", 2008), made darker or lighter: blue,
orange and purple are told apart by the colour-blind, and nothing is said by colour alone.
"""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "raised": "#f5f6f8",
    "ink": "#1b1f24",
    "quiet": "#57606b",
    "hairline": "#dfe3e8",
    "blue": "#0a63a8",
    "orange": "#a84a00",
    "purple": "#8b3a7e",
    "red": "#b3261e",
    "green": "#00694c",
    "red-tint": "#fdf1ef",
    "green-tint": "#eef7f3",
    "orange-tint": "#fdf4ea",
}
"""Colours by name. What is read is ink, quiet, or one of the hues, on paper or a tint."""

DARK = {
    "paper": "#14171b",
    "raised": "#1d2127",
    "ink": "#e7eaee",
    "quiet": "#a3adb9",
    "hairline": "#2d333b",
    "blue": "#6cb4f0",
    "orange": "#f2a65a",
    "purple": "#d99bd0",
    "red": "#ff8f80",
    "green": "#5cc9a4",
    "red-tint": "#2b1c1b",
    "green-tint": "#17251f",
    "orange-tint": "#2a2117",
}
"""The same names."""


def sheet() -> str:
    """The whole sheet."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_named(DARK)} }} }}"
    return f":root {{ {_named(LIGHT)} }}\n{dark}\n{_RULES}"


def _named(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


_RULES = """
:root {
  color-scheme: light dark;
  background: var(--paper);
  color: var(--ink);
  font: 100%/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
  -webkit-text-size-adjust: 100%;
  text-size-adjust: 100%;
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 4rem; }
h1, h2, h3, p, ul, dl, dd, figure, table { margin: 0; padding: 0; }
h1, h2 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 1.15rem; font-weight: 650; }
h1, .facts dd, code { overflow-wrap: anywhere; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
h1 code { font-size: 0.94em; }
section { margin-top: 3.25rem; }
.quiet, .note, .lead { color: var(--quiet); }
.note { font-size: 0.875rem; max-width: 44rem; text-wrap: pretty; }
h2 + p { margin-top: 0.35rem; }
p + .note { margin-top: 0.25rem; }
.lead { margin-top: 0.5rem; }
.lead span + span, time { white-space: nowrap; }
.lead > span + span::before { content: "\\00b7"; margin: 0 0.5em; }
.number, .whole { white-space: nowrap; }

.notice, .verdicts li { border-left: 3px solid; padding: 0.6rem 0.9rem; }
.notice { margin-top: 1rem; border-color: var(--orange); background: var(--orange-tint); }
.notice strong { color: var(--orange); }

.tiles { display: grid; gap: 1px; grid-template-columns: repeat(5, 1fr); margin-top: 1.75rem;
  background: var(--hairline); border: 1px solid var(--hairline); border-radius: 0.5rem;
  overflow: hidden; }
.tiles div { background: var(--paper); padding: 0.85rem 1rem 0.9rem; }
.tiles dt { color: var(--quiet); font-size: 0.8125rem; }
.tiles .number { font-size: 1.75rem; font-weight: 600; letter-spacing: -0.02em;
  line-height: 1.3; }
.tiles .unit { color: var(--quiet); font-size: 0.55em; font-weight: 500; letter-spacing: 0; }
.tiles .detail { color: var(--quiet); font-size: 0.75rem; line-height: 1.4; }
.tiles .bad .number, .tiles .bad .unit { color: var(--red); }

.verdicts { list-style: none; display: grid; gap: 0.4rem; margin-top: 0.9rem; }
.verdicts li { display: flex; gap: 0.6rem; align-items: baseline; }
.verdicts .failed { border-color: var(--red); background: var(--red-tint); }
.verdicts .passed { border-color: var(--green); background: var(--green-tint); }
.verdicts strong { min-width: 4rem; }
.mark { flex: none; width: 0.8rem; height: 0.8rem; fill: none; stroke: currentcolor;
  stroke-width: 2.4; stroke-linecap: round; stroke-linejoin: round; }
.failed .mark, .failed strong, .worse { color: var(--red); }
.passed .mark, .passed strong, .better { color: var(--green); }
.worse, .better { font-weight: 600; }

.scroll { overflow-x: auto; margin-top: 0.9rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9375rem; }
th, td { padding: 0.32rem 0 0.32rem 1.25rem; border-bottom: 1px solid var(--hairline);
  text-align: right; white-space: nowrap; vertical-align: baseline; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
thead th { color: var(--quiet); font-size: 0.8125rem; font-weight: 600; }
thead > tr > * { border-bottom-color: var(--quiet); }
tbody th { font-weight: 500; white-space: normal; }
td.word { text-align: left; padding-left: 2rem; }
th.word { text-align: left; padding-left: 2rem; }
.main { font-weight: 600; }

.kinds { display: grid; gap: 0.15rem 0.9rem; grid-template-columns: max-content 1fr;
  margin-top: 0.75rem; font-size: 0.875rem; }
.kinds dt { font-weight: 600; }
.kinds dd { color: var(--quiet); }
.kinds + .note { margin-top: 0.6rem; }
.facts { display: grid; gap: 0 2.5rem; grid-template-columns: 1fr 1fr; margin-top: 0.9rem;
  font-size: 0.9375rem; }
.facts div { display: flex; gap: 1rem; justify-content: space-between; padding: 0.32rem 0;
  border-bottom: 1px solid var(--hairline); }
.facts div.long { grid-column: 1 / -1; }
.facts dt { color: var(--quiet); flex: none; }
.facts dd { text-align: right; min-width: 0; }
.facts .long { justify-content: flex-start; }
.facts .long dd { text-align: left; }

figure { padding-bottom: 1.75rem; }
figcaption { margin-top: 0.35rem; }
.chart { display: block; width: calc(100% - 9rem); height: 17rem; overflow: visible;
  margin: 1.75rem 5rem 0 4rem; font-size: 0.75rem; }
.chart svg { overflow: visible; }
.axis { stroke: var(--quiet); stroke-width: 1; shape-rendering: crispedges; }
.grid { stroke: var(--hairline); stroke-width: 1; shape-rendering: crispedges; }
.tick { fill: var(--quiet); }
.tick.up { text-anchor: end; }
.tick.along { text-anchor: middle; }
.name { font-weight: 600; }
.line, .dot { fill: none; stroke: currentcolor; stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; vector-effect: non-scaling-stroke; }
.dot { stroke-width: 7; }
path.dot.max, path.dot.p50, path.dot.p99 { stroke-width: 4; }
.dot:hover { stroke-width: 11; }
.area { fill: currentcolor; opacity: 0.1; }
.name { fill: currentcolor; }
.key::before { content: ""; display: inline-block; width: 1.1em; border-top: 0.2em solid;
  margin-right: 0.4em; vertical-align: 0.22em; }
.latency, .p50, .rate { color: var(--blue); }
.service { color: var(--orange); }
.p99 { color: var(--purple); }
.max, .offered { color: var(--quiet); }
.failed.line, .failed.name, .failed.key, .failures { color: var(--red); }
.line.max { stroke-width: 1.25; }
.line.service { stroke-dasharray: 7 5; }
.line.offered { stroke-width: 1.25; stroke-dasharray: 4 4; }
.line.failed { stroke-width: 1.5; }
.failures { fill: currentcolor; shape-rendering: crispedges; }
.gap { fill: var(--raised); }
.gap-name, .end-of-load-name { fill: var(--quiet); text-anchor: middle; }
.value { fill: currentcolor; }
.value.left, .end-of-load-name { text-anchor: end; }
.end-of-load { stroke: var(--quiet); stroke-dasharray: 2 3; }
.hover { fill: var(--ink); fill-opacity: 0; }
.hover:hover { fill-opacity: 0.07; }
.legend { display: none; list-style: none; flex-wrap: wrap; gap: 0 1.1rem; margin-top: 0.5rem;
  font-size: 0.8125rem; font-weight: 600; }

@media (max-width: 58rem) { .value { display: none; } }
@media (max-width: 46rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.3rem; }
  section { margin-top: 2.25rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tiles div:first-child { grid-column: 1 / -1; }
  .tiles .number { font-size: 1.5rem; }
  .facts, .kinds { grid-template-columns: 1fr; }
  .kinds dd { margin-bottom: 0.35rem; }
  .chart { width: calc(100% - 4.25rem); height: 14rem; margin: 1.6rem 0.75rem 0 3.5rem; }
  .chart .name, .gap-name { display: none; }
  .legend { display: flex; }
  table { font-size: 0.8125rem; }
  thead th { font-size: 0.75rem; }
  th, td { padding-left: 0.4rem; }
  td.word, th.word { padding-left: 0.8rem; }
  td.word { white-space: normal; }
  .lead > span { display: block; }
  .lead > span + span::before { display: none; }
}
@media (max-width: 30rem) {
  .chart .roomy { display: none; }
  table { font-size: 0.75rem; }
  th, td { padding-left: 0.3rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  section { margin-top: 1.5rem; break-inside: avoid; }
  h2 { break-after: avoid; }
  .chart { height: 12rem; }
  .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
