"""Examples for property tests."""

from __future__ import annotations

import sys

from hypothesis import strategies as st


def text_of_any_characters(max_size: int | None = None) -> st.SearchStrategy[str]:
    """Text, surrogates included, in which markup and spaces are frequent.

    st.text() first makes a table of all characters, which takes more than a second in each process.
    """
    character = st.one_of(
        st.sampled_from("<>&\"'`/=- \t\nax09"), st.integers(0, sys.maxunicode).map(chr)
    )
    return st.lists(character, max_size=max_size).map("".join)
