"""The package, the man pages and README use standard terms: see vocabulary.py."""

from __future__ import annotations

import re

import pytest
from docs.vocabulary import ALLOWED, files, places, places_in
from helpers.paths import ROOT


def found(text: str, name: str = "README.md") -> list[tuple[int, str]]:
    return [(place.line, place.word) for place in places(name, text)]


def test_no_text_has_a_word_to_avoid():
    assert [str(place) for place in places_in(ROOT)] == []


def test_all_texts_are_searched():
    names = {str(path.relative_to(ROOT)) for path in files(ROOT)}
    assert {"README.md", "man/sipc-serve.1", "simpleipc_cli/bench/style.css"} <= names
    assert {"simpleipc_cli/client.py", "simpleipc_cli/cli/send/command.py"} <= names


def test_words_to_avoid_are_found_in_prose():
    assert found("It waits so\nlong, until somebody\nTells it.") == [
        (1, "so long"),
        (2, "somebody"),
        (3, "Tells"),
    ]
    assert found("# set at\n    # will", "x.py") == [(1, "at will")]
    assert found("housekeeping, a whole, lookup, headroom") == []


def test_words_to_avoid_are_found_in_identifiers():
    assert found("class TheLobby:\n    _KEEPER = 1\n", "x.py") == [(1, "Lobby"), (2, "KEEPER")]
    assert found("give_up = 1  # we give up\n", "x.py") == [(1, "give_up")]


def test_standard_terms_are_allowed():
    assert found("it looks like one, and looks") == [(1, "looks")]
    assert found("it looks\nlike one\n\nit looks") == [(4, "looks")]


@pytest.mark.parametrize("pattern", ALLOWED)
def test_every_exception_of_the_vocabulary_is_needed(pattern):
    texts = (path.read_text() for path in files(ROOT))
    assert any(re.search(pattern, text, re.I) for text in texts)
