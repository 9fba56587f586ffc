from __future__ import annotations

import pytest
from helpers.html import read
from helpers.strategies import text_of_any_characters
from hypothesis import given

from simpleipc_cli.bench.html.markup import Markup, bound, element, join, percent, printable


def test_text_is_escaped_and_markup_is_not():
    inner = element("b", "1 < 2")
    assert inner == "<b>1 &lt; 2</b>"
    assert element("p", inner, " & <i>") == "<p><b>1 &lt; 2</b> &amp; &lt;i&gt;</p>"
    assert join(["<", Markup("<br>")]) == "&lt;<br>"


def test_attributes_are_escaped_and_renamed():
    made = element("p", class_="a", aria_label="\"'<&>\n", x=0.5, y=12.0, width=1.23456)
    assert made == (
        '<p class="a" aria-label="&quot;&#x27;&lt;&amp;&gt;\\n" x="0.5" y="12" width="1.23"></p>'
    )


def test_an_attribute_without_a_value_is_left_out():
    assert element("td", class_="") == "<td></td>"


def test_a_void_element_has_no_end():
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


@given(text_of_any_characters(), text_of_any_characters())
def test_no_text_changes_the_structure(text, attribute):
    made = read(element("p", text, bound(text), title=attribute))
    assert [found.tag for found in made if found.tag != "span"] == ["p"]
    assert set(made.attributes) <= {"title"}
    assert made.text == 2 * printable(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain tęxt", "plain tęxt"),
        ("a\nb\t\x00\x7f", "a\\nb\\t\\x00\\x7f"),
        ("\udcff", "\\udcff"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}", "\\u202e"),
        ("\N{NO-BREAK SPACE}", "\\xa0"),
    ],
)
def test_characters_that_cannot_be_seen_are_escaped(text, expected):
    assert printable(text) == expected
    assert printable(text).encode()


def test_a_line_ends_neither_before_a_unit_nor_within_an_option():
    assert bound("p99 is 1.90 s, 5 % of 3 things") == "p99 is 1.90&nbsp;s, 5&nbsp;% of 3 things"
    assert bound("more --processes!") == 'more <span class="whole">--processes</span>!'
    assert bound("<1 ms>") == "&lt;1&nbsp;ms&gt;"


def test_coordinates_have_two_decimals_at_most():
    assert [percent(value) for value in (0, 50.0, 33.333333, 99.999)] == [
        "0%",
        "50%",
        "33.33%",
        "100%",
    ]
