"""Only a test that hangs fails; it shows where, its servers' logs and its screens."""

from __future__ import annotations

import re

from helpers import subrun


def test_the_time_limit_of_a_test_is_long(pytestconfig):
    assert float(pytestconfig.getini("timeout")) == 300


def test_each_hang_fails_one_test_that_shows_what_it_did():
    status, output = subrun.run(subrun.SAMPLES / "hangs.py", "-n", 1)
    assert status == 1, output
    assert re.match(r"=+ 5 failed, 1 passed, 2 errors in ", output.splitlines()[-1]), output
    assert re.search(r"PASSED \S+::test_after_all", output), output

    shown = output.partition(" test_hangs_with_a_server_and_a_terminal __")[2].partition("\n___")[0]
    assert "Failed: the test took more than 300 s" in shown, output
    assert re.search(r"^>? +hang\(\)$", shown, re.M), output
    assert re.search(r"Thread another:\n(.*\n)+.*in hang_in_thread\n", shown), output
    log = r"- log of /tmp/.* -+\nlistening on .*\n(.*\n)*.*: answered\n"
    assert re.search(log, shown), output
    assert re.search(r"^-+ screen -+\ntext on the screen\n", shown, re.M), output
    assert output.count("- log of /tmp/") == 1, "no other test had a server"

    # In the test, in a __exit__, in a fixture before the test and in one after it.
    for name in ("hangs_in_every_place", "hangs_in_a_setup"):
        assert re.search(rf"^(FAILED|ERROR) \S+::test_{name} - Failed: ", output, re.M), output
    assert "ERROR at teardown of test_hangs_in_every_place" in output
    assert re.search(r"hangs\.py:\d+: in __exit__$", output, re.M), output

    # In code that does not return to Python: its worker ends, with the stacks.
    for name in ("hangs_in_c", "hangs_in_c_after_it_failed"):
        assert f"crashed while running 'tests/suite/samples/hangs.py::test_{name}'" in output
    assert output.count("in hang_in_c\n") == 2, output
