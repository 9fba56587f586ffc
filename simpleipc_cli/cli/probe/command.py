"""`sipc probe`: its options, and which can be combined."""

from __future__ import annotations

import os
from typing import Any

import click

from simpleipc_cli.cli.options import (
    Verb,
    duration_option,
    expect_option,
    expect_regex_option,
    expectation,
    option_given,
    text_option,
    wait_option,
)
from simpleipc_cli.cli.probe.run import ProbeOptions, run

HELP = """Check whether a server is listening on each PATH.

Connects and closes without sending a byte. Exit status: 0 listening, 3 not listening,
4 no such path, 5 not a socket, 8 permission denied; of several the highest. Without PATH:
$SIPC_PATH, else sipc.sock in $XDG_RUNTIME_DIR, else in /tmp/sipc-UID.

With --data it sends a request, too. The exit status is also 6 if there is no response in
time, 7 if it is truncated or malformed, and 10 if it is not as expected.

If the exit status is 0, CMD is executed in place of probe. Status 126: it cannot be executed,
127: it does not exist.

Durations: 500ms, 2s, 1m30s; 0 means no limit.
"""

EXAMPLES = """\b
Examples:
  sipc probe -q demo.sock && echo 'the server is listening'
  sipc probe --wait 10s a.sock b.sock -- ./run-tests --fast"""

_PATH = click.Path(readable=False)


class _Probe(Verb):
    """The verb. Its command line can end with `-- CMD ARG...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at, follows_path = self._last_end_of_options(args)
        if follows_path:
            ctx.params["command"] = args[at + 1 :]
            args = args[:at]
        rest = super().parse_args(ctx, args)
        if at >= 0 and not follows_path and ctx.params["others"]:
            raise click.UsageError("the -- before CMD must follow a PATH", ctx)
        return rest

    def _last_end_of_options(self, args: list[str]) -> tuple[int, bool]:
        """Return the position of `--`, and whether it follows a PATH; -1 without it.

        A `--` before the first PATH only ends the options.
        """
        options = (option for option in self.params if isinstance(option, click.Option))
        valued = {flag for option in options if not option.is_flag for flag in option.opts}
        end, has_path = -1, False
        words = iter(enumerate(args))
        for at, word in words:
            if word == "--" and (has_path or end < 0):
                end = at
                if has_path:
                    return end, True
            elif end >= 0 or word == "-" or not word.startswith("-"):
                has_path = True
            elif _takes_next_word(word, valued):
                next(words, None)
        return end, False


def _takes_next_word(word: str, valued: set[str]) -> bool:
    """Return whether the next word is the value of the option in `word`, such as -qt."""
    if word.startswith("--"):
        return word in valued
    return next((at for at in range(1, len(word)) if f"-{word[at]}" in valued), 0) == len(word) - 1


@click.command(cls=_Probe, help=HELP, epilog=EXAMPLES)
@click.argument("path", required=False, type=_PATH, metavar="[PATH]...")
@click.argument("others", nargs=-1, type=_PATH, metavar="[-- CMD [ARG]...]")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; see the exit status.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object, with all details; an array for several PATHs.",
)
@wait_option
@duration_option(
    "--wait-gone",
    help="Keep probing until no server listens; then exit with status 0.",
)
@click.option(
    "--any", "is_any", is_flag=True, help="One PATH on which a server is listening is enough."
)
@duration_option(
    "-t",
    "--timeout",
    default=f"{ProbeOptions.timeout:g}s",
    help="Maximum time to wait while the server's queue is full, and, with --data, for the "
    "response.",
)
@text_option("-d", "--data", help="Send TEXT, and check the response.")
@expect_option
@expect_regex_option
@click.pass_context
def probe(
    ctx: click.Context,
    /,
    path: str | None,
    others: tuple[str, ...],
    is_any: bool,
    data: str | None,
    expect: str | None,
    expect_regex: str | None,
    command: list[str] | None = None,
    **given: Any,
) -> int:
    """Run `sipc probe`."""
    has_wait, has_wait_gone = option_given(ctx, "wait"), option_given(ctx, "wait_gone")
    if has_wait and has_wait_gone:
        raise click.UsageError("--wait cannot be combined with --wait-gone")
    if is_any and has_wait_gone:
        raise click.UsageError("--any cannot be combined with --wait-gone")
    if command == []:
        raise click.UsageError("a command must follow --")

    def options(path: str | None) -> ProbeOptions:
        return ProbeOptions(
            **given,
            path=path,
            has_wait=has_wait,
            has_wait_gone=has_wait_gone,
            data=None if data is None else os.fsencode(data),
            expected=expectation(expect, expect_regex),
        )

    probes = [options(one) for one in (path, *others)]
    if data is None and probes[0].expected is not None:
        raise click.UsageError("--expect and --expect-regex require --data (it may be empty)")
    if has_wait_gone and data is not None:
        raise click.UsageError("--data cannot be combined with --wait-gone")
    if len(probes) == 1 and not is_any and command is None:
        return run(probes[0])
    from simpleipc_cli.cli.probe.several import run_several  # noqa: PLC0415 - seldom needed

    return run_several(probes, is_any=is_any, command=command)
