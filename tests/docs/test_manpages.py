"""The man pages: exactly the options of the commands, all exit statuses, no warning of mandoc."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from docs.manpages import MAN, pages, renewed
from helpers.inprocess_cli import run_cli

from simpleipc_cli.cli.exitcodes import NAMES
from simpleipc_cli.cli.parse import VERBS

PAGES = sorted(MAN.iterdir())
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
needs_mandoc = pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_each_page_lists_exactly_the_options_of_its_commands(page):
    assert renewed(page.read_text(), pages()[page]) == page.read_text(), (
        "renew it: cd tests; python -m docs.manpages"
    )


def test_the_list_of_options_in_a_page_changes_with_the_command_line():
    options = pages()[MAN / "sipc-send.1"]
    text = (MAN / "sipc-send.1").read_text()
    assert renewed(text, options[1:]) != text
    longer = [*options[:-1], replace(options[-1], help=options[-1].help + " [default: 1s]")]
    assert renewed(text, longer) != text


def test_every_verb_has_a_man_page():
    names = {"sipc.1", "sipc-api.7", "sipc-protocol.7", *(f"sipc-{verb}.1" for verb in VERBS)}
    assert {page.name for page in PAGES} == names


@needs_mandoc
@each_page
def test_mandoc_reports_no_warnings(page):
    done = subprocess.run(["mandoc", "-Tlint", page], capture_output=True, text=True)
    # The pages of other programs need not be installed.
    others = re.compile("referenced manual not found|outdated mandoc.db")
    warnings = [
        line for line in (done.stdout + done.stderr).splitlines() if not others.search(line)
    ]
    assert warnings == []


@each_page
def test_pages_refer_to_existing_pages(page):
    referred = set(re.findall(r"^\.Xr (sipc\S*) (\d)", page.read_text(), re.M))
    assert referred
    assert {f"{name}.{section}" for name, section in referred} <= {page.name for page in PAGES}
    assert (page.stem, page.suffix[1:]) not in referred


def test_every_exit_status_is_explained():
    section = re.search(r"^\.Sh EXIT STATUS$(.*?)^\.El", (MAN / "sipc.1").read_text(), re.M | re.S)
    items = re.findall(r"^\.It (.*)$", section[1], re.M)
    assert items == [*map(str, NAMES), "129, 130, 143"]


def test_the_fields_of_a_probes_json_are_explained(endpoint):
    found = json.loads(run_cli("probe", "--json", endpoint, "-d", "").stdout)
    names = re.findall(r"^\.It Li (.*)$", (MAN / "sipc-probe.1").read_text(), re.M)
    assert [name for names in names for name in names.split(" , ")] == list(found)


@each_page
def test_a_page_has_the_usual_sections(page):
    sections = re.findall(r"^\.Sh (.*)$", page.read_text(), re.M)
    wanted = ["NAME", "DESCRIPTION", "SEE ALSO"]
    if page.suffix == ".1":
        wanted += ["SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES"]
    assert set(wanted) <= set(sections)


def ragged(text: str) -> list[str]:
    """Return the lines of prose that have space for the next line's first word."""
    text = re.sub(r"^\.Bd -literal.*?^\.Ed$", ".", text, flags=re.M | re.S)
    pairs = re.findall(r"^(?=([^.\n].*)\n([^.\s]\S*))", text, re.M)
    return [line for line, word in pairs if line[-1] not in ".:?!" and len(f"{line} {word}") < 77]


@each_page
def test_the_lines_of_each_page_are_filled(page):
    assert ragged(page.read_text()) == []


def test_lines_that_are_not_filled_are_found():
    assert ragged(".Ar CMD\nis the\nresponse.\nBoth are\n.Ar X\n") == ["is the"]
    assert ragged("is the\n.Bd -literal\na\nb\n.Ed\nresponse.\n") == []
