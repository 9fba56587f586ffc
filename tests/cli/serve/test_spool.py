"""`sipc serve --whole-request`: requests stored on disk, and disks without room."""

from __future__ import annotations

from helpers.command import environment, needs_root
from helpers.mounts import small_disk
from helpers.server import Server
from helpers.wire import ask

MIB = 1 << 20


@needs_root
def test_requests_are_stored_in_the_first_usable_folder(endpoint, folder):
    """Not in a TMPDIR that does not exist, nor in a /var/tmp that is read-only."""
    read_only = 'mount -t tmpfs -o ro none /var/tmp && exec "$@"'
    env = environment(TMPDIR=str(folder / "missing"))
    wrapper = ("unshare", "-m", "sh", "-c", read_only, "-")
    with Server(endpoint, "cat", "--whole-request", wrapper=wrapper, env=env) as server:
        assert ask(endpoint, bytes(MIB)) == (bytes(MIB), True)
        assert "TMPDIR" not in server.log


def test_a_server_warns_at_the_start_if_it_can_write_files_in_no_folder(endpoint):
    wrapper = ("prlimit", "--fsize=0")
    with Server(endpoint, "cat", "--whole-request", wrapper=wrapper) as server:
        line = server.log.splitlines()[0]
        assert line.startswith("sipc serve: no file can be written in ")
        assert "/var/tmp or /tmp: requests that must be stored fail: set TMPDIR" in line
        assert ask(endpoint, b"x") == (b"", False)
        server.wait_for_log("aborted: cannot write to a spool file")


@needs_root
def test_a_full_disk_ends_only_the_request_and_not_the_server(endpoint, folder):
    with small_disk(folder / "small") as spool:
        env = environment(TMPDIR=str(spool))
        with Server(endpoint, "cat", "--whole-request", env=env) as server:
            assert ask(endpoint, bytes(3 * MIB)) == (b"", False)
            line = server.wait_for_log("No space left on device")
            assert str(spool) in line
            assert "TMPDIR" in line
            assert ask(endpoint, bytes(1000)) == (bytes(1000), True)
