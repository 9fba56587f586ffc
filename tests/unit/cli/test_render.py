"""Text for people: errors and log lines."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.command import environment

from simpleipc_cli.text import printable

WITHOUT_DESCRIPTORS = """
import os, resource
from simpleipc_cli.text import printable
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(printable("a\\tb"))
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a 'quoted' \\ é", "a 'quoted' \\ é"),
        ("a\tb\n", "a\\tb\\n"),
        ("\x1b[m\x7f", "\\x1b[m\\x7f"),
        ("\udcff\u200b\U000e0001", "\\udcff\\u200b\\U000e0001"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text, shown):
    assert printable(text) == shown


def test_text_is_escaped_where_no_file_can_be_opened():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS], env=environment(), capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"a\\tb\n", b"")
