from __future__ import annotations

import pytest
from helpers.html import read
from helpers.strategies import text_of_any_characters
from hypothesis import given

from simpleipc_cli.bench.page import Markup, element
from simpleipc_cli.text import printable


def test_text_is_escaped_and_markup_is_left_unchanged():
    inner = element("b", "1 < 2")
    assert inner == "<b>1 &lt; 2</b>"
    assert element("p", inner, " & <i>") == "<p><b>1 &lt; 2</b> &amp; &lt;i&gt;</p>"
    assert element("p", Markup("<br>")) == "<p><br></p>"


def test_attributes_are_escaped_and_renamed():
    made = element("p", class_="a", aria_label="\"'<&>\n")
    assert made == '<p class="a" aria-label="&quot;&#x27;&lt;&amp;&gt;\\n"></p>'


def test_an_attribute_without_a_value_is_left_out():
    assert element("td", class_="") == "<td></td>"


def test_a_void_element_has_no_end():
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


@given(text_of_any_characters(), text_of_any_characters())
def test_no_text_changes_the_structure_of_the_markup(text, attribute):
    made = read(element("p", text, text, title=attribute))
    assert [found.tag for found in made] == ["p"]
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
def test_invisible_characters_are_escaped(text, expected):
    assert printable(text) == expected
    assert printable(text).encode()
