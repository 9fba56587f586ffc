"""Figures that a run has found, stated at its end."""

from __future__ import annotations

import pytest

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def state(request, record_property):
    """Says a figure at the end of the run, and in a report in XML."""

    def stated(what: str, figure: str) -> None:
        request.config.stash.setdefault(_FIGURES, []).append(f"{what}: {figure}")
        record_property(what, figure)

    return stated


def pytest_terminal_summary(terminalreporter, config):
    if figures := config.stash.get(_FIGURES, []):
        terminalreporter.section("performance")
        for figure in figures:
            terminalreporter.line(figure)
