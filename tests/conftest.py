"""The setup of all tests: a known state, a time limit, few or many examples, fixtures."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest
from helpers import leftovers, masked, state

masked.begin()  # before other modules are imported

pytest_plugins = ["helpers.report", "helpers.timeouts"]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    state.use_worker_if_signals_are_ignored(config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    state.reset(config)
    masked.set_environment()
    if not state.is_worker(config):
        leftovers.guard = leftovers.Guard()
        state.set_home(str(leftovers.folder() / "home"))
        if config.option.basetemp is None:
            config.option.basetemp = str(leftovers.folder() / "pytest")
    hypothesis.configuration.set_hypothesis_home_dir(leftovers.folder() / "hypothesis")
    # A test must not fail on a busy machine.
    common = {"deadline": None, "database": None}
    common["suppress_health_check"] = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("ordinary", max_examples=30, derandomize=True, **common)
    hypothesis.settings.register_profile("soak", max_examples=500, **common)
    hypothesis.settings.load_profile("soak" if _runs_soak(config) else "ordinary")


def _runs_soak(config) -> bool:
    return "not soak" not in config.option.markexpr


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Count tests by hypothesis, with many examples, among those that `-m soak` runs."""
    if _runs_soak(config):
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("soak")
    masked.deselect(config, items)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session):
    if not state.is_controller(session.config):
        os.chdir(session.config.rootpath)


def pytest_keyboard_interrupt():
    """Forward Ctrl-C to the workers of pytest-xdist, whose sessions have no terminal."""
    if guard := leftovers.guard:
        guard.interrupt_children()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if guard := leftovers.guard:
        left = guard.finish(in_good_order=session.exitstatus != pytest.ExitCode.INTERRUPTED)
        if left:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            reporter.section("processes that the run left, and killed", red=True)
            reporter.write("\n".join(left) + "\n")


@pytest.fixture
def folder():
    """A folder with a short path, as socket addresses are short."""
    path = Path(tempfile.mkdtemp(prefix="", dir=leftovers.folder()))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def endpoint(folder):
    """A path for a socket."""
    return folder / "sock"


@pytest.fixture
def script(folder):
    """Writes an executable file and returns its path."""

    def write(text: str, name: str = "handler.sh") -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write
