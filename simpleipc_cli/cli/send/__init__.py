"""`sipc send`."""

from __future__ import annotations

from simpleipc_cli.cli.parse import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.expect import Expectation


class SendOptions(Options):
    """The options of `sipc send`; times in seconds, None for no limit."""

    path: str | None = None
    data: str | None = None
    data_file: str | None = None
    output: str | None = None
    connect_timeout: float | None = 1.0
    max_time: float | None = None
    wait: float | None = None
    has_wait: bool = False
    """Whether --wait is given."""
    spawn: str | None = None
    expected: Expectation | None = None
    trace: bool = False
    trace_file: str | None = None
    stats: bool = False
    progress: bool | None = None
    """None shows it on a suitable terminal."""
