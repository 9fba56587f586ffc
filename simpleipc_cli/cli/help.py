"""The text of `sipc --help`, which is printed without click: loading it takes five times longer."""

from __future__ import annotations

from simpleipc_cli.cli.parse import VERBS

_COMMANDS = "\n".join(f"  {verb:<5}  {purpose}" for verb, purpose in VERBS.items())

# No docstring, as Python removes docstrings with -OO.
HELP = f"""\
Usage: sipc [OPTIONS] COMMAND [ARGS]...

  Speak Simple-IPC, git's protocol between local processes.

  A client connects to a Unix domain socket, sends one request and gets one
  response. Serve requests, send them, check whether a server is listening,
  and measure its rate and latency.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
{_COMMANDS}

  Examples:
    sipc serve demo.sock --exec ./handler.sh
    echo hello | sipc send demo.sock

  `sipc VERB --help` lists the options of a verb."""
