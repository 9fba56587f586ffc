"""Foreign bytes and text are made readable on one line, without losing information."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from helpers.command import environment

from simpleipc_cli.text import printable, quoted

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
def test_every_escaped_byte_can_be_read_back(kind):
    text = quoted(kind(ALL * 2))
    assert text.isascii()
    assert text.isprintable()
    assert ast.literal_eval("b" + text) == ALL * 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a 'quoted' \\ é", "a 'quoted' \\ é"),
        ("a\tb\n", "a\\tb\\n"),
        ("\x1b[m\x7f", "\\x1b[m\\x7f"),
        ("\udcff\u200b\U000e0001", "\\udcff\\u200b\\U000e0001"),
    ],
)
def test_text_that_is_not_printable_is_escaped(text, shown):
    assert printable(text) == shown


WITHOUT_DESCRIPTORS = """
import os, resource
from simpleipc_cli.text import printable
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(printable("a\\tb"))
"""


def test_text_is_escaped_even_if_no_file_can_be_opened():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS], env=environment(), capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"a\\tb\n", b"")
