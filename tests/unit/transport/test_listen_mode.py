"""The mode of a socket: exactly what was asked for."""

from __future__ import annotations

import os
import stat

import pytest

from simpleipc_cli.transport import listen


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777], ids=oct)
@pytest.mark.parametrize("mode", [0o600, 0o666, 0o640], ids=oct)
def test_the_mode_is_exact_whatever_the_umask(endpoint, umask, mode):
    before = os.umask(umask)
    try:
        listener = listen(str(endpoint), mode=mode, backlog=5)
    finally:
        os.umask(before)
    assert stat.S_IMODE(endpoint.stat().st_mode) == mode
    listener.stop_listening()
    listener.close()
