"""Reads HTML back, more strictly than a browser."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"br", "hr", "img", "input", "link", "meta"}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.content: list[Element | str] = []

    def __getitem__(self, attribute: str) -> str:
        return self.attributes[attribute]

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    @property
    def text(self) -> str:
        pieces = (piece if isinstance(piece, str) else piece.text for piece in self.content)
        return "".join(pieces).replace("\N{NO-BREAK SPACE}", " ")

    def __iter__(self) -> Iterator[Element]:
        """Yield this element and all elements in it."""
        yield self
        for piece in self.content:
            if isinstance(piece, Element):
                yield from piece

    def all(self, tag: str, class_: str = "") -> list[Element]:
        wanted = set(class_.split())
        return [found for found in self if found.tag == tag and wanted <= found.classes]

    def one(self, tag: str, class_: str = "") -> Element:
        (found,) = self.all(tag, class_)
        return found

    def percent(self, attribute: str) -> float:
        return float(self[attribute].removesuffix("%"))

    def rows(self) -> list[list[str]]:
        """The cells of a table's rows, heads included."""
        cells = (row.content for row in self.all("tr"))
        return [[cell.text for cell in row] for row in cells]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attributes) -> None:
        assert len(dict(attributes)) == len(attributes), f"an attribute twice in {tag}"
        element = Element(tag, dict(attributes))
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attributes) -> None:
        raise AssertionError(f"<{tag}/>, which HTML takes for <{tag}>")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


def read(markup: str) -> Element:
    """The element that some markup is; it must be closed properly."""
    parser = _Parser()
    parser.feed(markup)
    parser.close()
    assert parser.open == [parser.root], f"not closed: {[e.tag for e in parser.open[1:]]}"
    (element,) = [piece for piece in parser.root.content if isinstance(piece, Element)]
    return element


def table(page: Element, name: str) -> Element:
    """The table below a heading with an id."""
    (found,) = [table for table in page.all("table") if table["aria-labelledby"] == name]
    return found


class Axis:
    """What an axis of a chart means, found out from two of its ticks alone."""

    def __init__(self, chart: Element, which: str, value, transform=float) -> None:
        """`value` reads a tick's name; `transform` makes it linear, such as log10."""
        attribute = {"up": "y", "along": "x"}[which]
        ticks = [
            (transform(value(tick.text)), tick.percent(attribute))
            for tick in chart.all("text", f"tick {which}")
        ]
        assert len(ticks) >= 2
        (low, start), (high, end) = ticks[0], ticks[-1]
        self._scale = (end - start) / (high - low)
        self._start = start - low * self._scale
        self._transform = transform
        for at, place in ticks:  # evenly spaced, all of them, to what two decimals hold
            assert abs(self._start + at * self._scale - place) < 0.02

    def position(self, value: float) -> float:
        """Where a value lies, from 0 to 1000, from the left or the top."""
        return 10 * (self._start + self._transform(value) * self._scale)

    def transformed(self, place: float) -> float:
        """The transformed value at a place from 0 to 1000."""
        return (place / 10 - self._start) / self._scale


def points(path: str) -> list[list[tuple[float, float]]]:
    """The points of each stroke of a path of M, L, V, H and h0."""
    strokes: list[list[tuple[float, float]]] = []
    for command, numbers in _commands(path):
        if command == "M":
            strokes.append([(numbers[0], numbers[1])])
            continue
        x, y = strokes[-1][-1]
        if command == "L":
            x, y = numbers
        elif command == "H":
            (x,) = numbers
        elif command == "V":
            (y,) = numbers
        else:
            assert (command, numbers) == ("h", [0.0])
            continue
        strokes[-1].append((x, y))
    return strokes


def _commands(path: str) -> Iterator[tuple[str, list[float]]]:
    letter, digits = "", ""
    for char in f"{path}#":
        if char.isalpha() or char == "#":
            if letter:
                yield letter, [float(number) for number in digits.split()]
            letter, digits = char, ""
        else:
            digits += char
