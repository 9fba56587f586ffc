"""The options of `sipc serve`, by what they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from simpleipc_cli.cli.options import DURATION, GROUP, MODE, SIZE, USER, Duration

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _group(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Several options as one decorator; --help lists them in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


handlers = _group(
    click.option(
        "--exec",
        "command",
        metavar="CMD",
        help="Run CMD, a shell command line, for every request: the request is its standard "
        "input, its standard output is the response.",
    ),
    click.option(
        "--worker",
        metavar="CMD",
        help="In place of --exec: start CMD when needed, one per thread at most, and keep it. "
        "Requests come over its standard input, responses over its output, as packets, each "
        "message ended by a flush.",
    ),
    click.option(
        "--max-requests-per-worker",
        "max_requests",
        metavar="N",
        type=click.IntRange(1),
        help="Replace a worker when it has had N requests.",
    ),
    click.option(
        "--prestart",
        metavar="N",
        type=click.IntRange(1),
        help="Keep N handlers of --exec started, waiting for their standard input; they do not "
        "get the variables that tell who asks.",
    ),
    click.option(
        "--whole-request",
        is_flag=True,
        help="Start the handler only when its request is complete.",
    ),
    click.option(
        "--on-hangup",
        type=click.Choice(["kill", "finish"]),
        default="kill",
        show_default=True,
        help="What becomes of a handler whose client has gone; finish applies to complete "
        "requests.",
    ),
    click.option(
        "--timeout",
        metavar="DURATION",
        type=DURATION,
        default="0",
        show_default=True,
        help="Longest time from a handler's start to its end; from a request to the end of its "
        "answer, where the handler was there before.",
    ),
    click.option(
        "--kill-after",
        metavar="DURATION",
        type=Duration(zero_is_none=False),
        default="2s",
        show_default=True,
        help="Time between SIGTERM and SIGKILL for a handler that has to end; 0 is no time at all.",
    ),
)
"""What answers, and what may become of it."""

limits = _group(
    click.option(
        "--threads",
        metavar="N",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Handle N requests at once; the others wait.",
    ),
    click.option(
        "--backlog",
        metavar="N",
        type=click.IntRange(1, 2**31 - 1),
        default=1024,
        show_default=True,
        help="Let N connections wait in the kernel before they are accepted.",
    ),
    click.option(
        "--max-request",
        metavar="SIZE",
        type=SIZE,
        default="0",
        show_default=True,
        help="Refuse requests with more bytes of payload.",
    ),
    click.option(
        "--read-timeout",
        metavar="DURATION",
        type=DURATION,
        default="30s",
        show_default=True,
        help="Longest silence within a request, and longest time for one packet of it.",
    ),
    click.option(
        "--write-timeout",
        metavar="DURATION",
        type=DURATION,
        default="60s",
        show_default=True,
        help="Longest time in which no byte moves while the client should read.",
    ),
)
"""How much, and how long."""

access = _group(
    click.option(
        "--mode",
        metavar="OCTAL",
        type=MODE,
        help="Permissions of the socket, whatever the umask; who may write to it may connect.  "
        "[default: 0600; 0660 with --group, 0666 with --allow-user]",
    ),
    click.option(
        "--group",
        metavar="GROUP",
        type=GROUP,
        help="Give the socket to this group, a name or a number.",
    ),
    click.option(
        "--allow-user",
        "allowed_users",
        metavar="USER",
        type=USER,
        multiple=True,
        help="Answer this user's requests only, a name or a number; may be given again. Neither "
        "root nor the server's own user is allowed unless named.",
    ),
)
"""Who may connect."""

stopping = _group(
    click.option(
        "--count",
        metavar="N",
        type=click.IntRange(1),
        help="Stop when the N-th request has come.",
    ),
    click.option(
        "--idle-timeout",
        metavar="DURATION",
        type=DURATION,
        default="0",
        show_default=True,
        help="Stop when there has been no request for so long.",
    ),
    click.option(
        "--quit-on",
        metavar="TEXT",
        help="Answer a request of exactly these bytes with an empty response, and stop.",
    ),
    click.option(
        "--drain-timeout",
        metavar="DURATION",
        type=DURATION,
        default="10s",
        show_default=True,
        help="When stopping, longest time to answer what is connected.",
    ),
)
"""When it ends, and how."""

service = _group(
    click.option(
        "--background",
        is_flag=True,
        help="Return once the server is listening, which goes on in the background.",
    ),
    click.option(
        "--max-wait",
        metavar="DURATION",
        type=DURATION,
        default="60s",
        show_default=True,
        help="With --background, longest time until it has to be listening.",
    ),
    click.option(
        "--pid-file",
        metavar="FILE",
        help="Write the server's process id to FILE, and remove it at the end. No two servers "
        "have the same.",
    ),
)
"""How it runs beside whoever started it."""

logging = _group(
    click.option(
        "--log-file",
        metavar="FILE",
        help="Add the log to FILE, not to stderr; SIGHUP opens it anew.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How the log looks: json is an object a line.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show problems only."),
    click.option("-v", "--verbose", is_flag=True, help="Show more."),
)
"""What it says."""
