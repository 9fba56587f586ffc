"""Read what --trace writes."""

from __future__ import annotations

import re


def trace_lines(trace: bytes) -> list[tuple[str, str]]:
    """The lines of a trace without their time: pairs of exchange and what happened.

    Each line must be complete, and not mixed with another one.
    """
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d"
    event = (
        r'= (connected|connected for request "\S+"|accepted) (to|on) ".*": pid=\d+ uid=\d+ gid=\d+'
        r"|= closed: sent bytes=\d+ packets=\d+, received bytes=\d+ packets=\d+"
        r"|> not sent: .*"
        r"|[><] (sent|received) (0000( after the flush)?: flush"
        r'|[0-9a-f]{4} \(\d+ bytes\)( after the flush)?: (empty|".*"( and \d+ left out)?)'
        r"|malformed.*|not decoded.*|truncated: .*|unfinished: .*|end of stream)"
    )
    found = []
    for line in trace.decode("ascii").splitlines():
        match = re.fullmatch(rf"{time} (\d+-\d+) ({event})", line)
        assert match, line
        found.append((match[1], match[2]))
    return found


def trace_events(trace: bytes) -> list[str]:
    """Return the events in a trace of a single exchange."""
    lines = trace_lines(trace)
    assert len({name for name, _ in lines}) == 1
    return [event for _, event in lines]
