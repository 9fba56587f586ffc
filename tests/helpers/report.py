"""Show with a failed test what its servers logged and what its terminals displayed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_shown: list[tuple[str, Callable[[], str], Callable[[], bool]]] = []


def show_on_failure(title: str, text: Callable[[], str], is_open: Callable[[], bool]) -> None:
    """Add a section to the report of the running test if it fails.

    A thing that is still open when the next test begins (a module's server) is shown there, too.
    """
    _shown.append((title, text, is_open))


def pytest_runtest_logstart() -> None:
    _shown[:] = [shown for shown in _shown if shown[2]()]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    if report.failed:
        for title, text, _ in _shown:
            try:
                report.sections.append((title, text()))
            except Exception as error:  # of a screen: what it cannot draw
                report.sections.append((title, repr(error)))
    return report
