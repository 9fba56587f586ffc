"""Compare the speed of sipc with other programs: one command, one table.

From the folder `tests`: `python -m performance.table [WORD...]`; with words only rows that have
one of them in their name. `--small` takes small counts, to see that it works.

Both sides of a row are measured in turn, several times, so that other load on the machine
affects both alike. Each figure is the median and, in brackets, the smallest and the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from performance.measuring import FULL, SMALL, Row, Scale, measured
from performance.rows import ROWS


def lines(rows: list[Row], scale: Scale) -> Iterator[str]:
    """The table in Markdown, each line as soon as it is known."""
    yield "| what | against | figures: median (least to most) | ratio, goal |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        found = measured(row, scale)
        yield f"| {row.what} | {row.against} | {found} |" + (" |" if "|" not in found else "")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    chosen = [row for row in ROWS if all(word in row.what for word in given.words)]
    for line in lines(chosen, SMALL if given.small else FULL):
        print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
