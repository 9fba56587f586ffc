"""Figures that a run has measured, printed at its end."""

from __future__ import annotations

import pytest


@pytest.fixture
def state(record_property):
    """Prints a figure at the end of the run and in an XML report.

    By way of the test's report, which also comes from tests that another process has run.
    """
    return record_property


def pytest_terminal_summary(terminalreporter):
    figures = [
        f"{what}: {figure}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for what, figure in report.user_properties
    ]
    if figures:
        terminalreporter.section("performance")
        for figure in figures:
            terminalreporter.line(figure)
