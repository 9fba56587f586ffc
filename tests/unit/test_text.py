"""Bytes in quotes: readable, on one line, and nothing is lost."""

from __future__ import annotations

import ast

import pytest

from simpleipc_cli.text import quoted

ALL = bytes(range(256))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", '""'),
        (b"plain text ~", '"plain text ~"'),
        (b'say "x"\\n', r'"say \"x\"\\n"'),
        (b"\t\n\r\0\x1b[31m\x7f", r'"\t\n\r\x00\x1b[31m\x7f"'),
        ("ä\u202e".encode(), r'"\xc3\xa4\xe2\x80\xae"'),
    ],
    ids=["empty", "plain", "quotes", "controls", "not ASCII"],
)
def test_characters_that_are_not_printable_are_escaped(data, text):
    assert quoted(data) == text


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_byte_reads_back(kind):
    text = quoted(kind(ALL * 2))
    assert text.isascii()
    assert text.isprintable()
    assert ast.literal_eval("b" + text) == ALL * 2
