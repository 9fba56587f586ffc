"""The container that the other tests use: two run at the same time, and nothing is left of them."""

from __future__ import annotations

import os
from pathlib import Path

from helpers.waiting import TIMEOUT


def control_groups(container) -> list[Path]:
    """The control groups that were made for a container."""
    name = f"sipc-test-{container.process.pid}"
    folders = (Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup"))
    return [folder for folder in folders if folder.name == name]


def test_two_containers_have_different_services_files_and_machine_ids(container, another_container):
    ids = [one.run("cat", "/etc/machine-id").stdout for one in (container, another_container)]
    assert ids[0] != ids[1]
    another_container.run("touch", "/run/here")
    container.run("ls", "/run/here", status=2)
    another_container.run("systemd-run", "--unit=here", "sleep", "infinity")
    container.run("systemctl", "is-active", "here.service", status=3)


def test_a_container_ends_when_the_test_run_ends(another_container):
    """Each kind of end closes the descriptor that keeps the container running."""
    groups = control_groups(another_container)
    assert groups
    another_container.process.stdin.close()
    another_container.process.wait(TIMEOUT)
    assert not Path(f"/proc/{another_container.leader}").exists()
    assert not [group for group in groups if group.exists()]
