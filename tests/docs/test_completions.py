"""Completions: real shells offer every verb and option, without starting Python."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from docs.commandline import group_options, verbs
from docs.completions import FOLDER, rendered
from helpers import leftovers
from helpers.command import environment
from helpers.waiting import TIMEOUT

from simpleipc_cli.cli.parse import VERBS

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_sipc
printf '%s\\n' "${COMPREPLY[@]}"
"""

FISH = """
source $argv[1]
complete -C "$argv[2]"
"""

# An interactive zsh on a separate terminal; its compadd prints all matches.
ZSH = r"""
zmodload zsh/zpty
zpty -b shell zsh -f -i
zpty -w shell "PROMPT=; fpath=(${(q)1:h} \$fpath); stty -echo"
zpty -w shell "autoload -Uz compinit; compinit -u -d ${(q)3}"
zpty -w shell 'compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
    local hit; local -a hits
    builtin compadd -A hits "$@"
    for hit in $hits; do print -r -- "<hit>$hit</hit>"; done
    builtin compadd "$@"
}'
zpty -w shell 'ended() { print "<e""nd>"; zle kill-whole-line }; zle -N ended; bindkey "^X" ended'
zpty -w shell 'print "<re""ady>"'
zpty -r -m shell out "*<ready>*"
zpty -n -w shell "$2"$'\t'$'\x18'
zpty -r -m shell out "*<end>*"
print -r -- "$out"
zpty -d shell
"""


def offered_by_bash(line: str, folder: Path) -> list[str]:
    return _shell(folder, "bash", "-c", BASH, "bash", FOLDER / "sipc.bash", *line.split(" "))


def offered_by_zsh(line: str, folder: Path) -> list[str]:
    dump = leftovers.folder() / "zcompdump"  # the next zsh starts faster
    printed = "\n".join(_shell(folder, "zsh", "-f", "-c", ZSH, "zsh", FOLDER / "_sipc", line, dump))
    return [hit.removesuffix("/") for hit in re.findall("<hit>(.*?)</hit>", printed)]


def offered_by_fish(line: str, folder: Path) -> list[str]:
    printed = _shell(folder, "fish", "-N", "-c", FISH, FOLDER / "sipc.fish", line)
    return [hit.partition("\t")[0].removesuffix("/") for hit in printed]


def _shell(folder: Path, name: str, *arguments) -> list[str]:
    """Run a shell without sipc and Python on its PATH; return the lines that it prints."""
    done = subprocess.run(
        [shutil.which(name), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT,
        env={
            **environment(),
            "HOME": str(folder),
            "TERM": "xterm",
            "PATH": f"{folder}/bin:{TOOLS}",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[: -1 if done.stdout.endswith("\n") else None]


TOOLS = "/usr/bin:/bin"
SHELLS = {"bash": offered_by_bash, "zsh": offered_by_zsh, "fish": offered_by_fish}


@pytest.fixture(params=SHELLS)
def offered(request, folder):
    """Return a function that returns what a shell offers for an incomplete line."""
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param}")
    (folder / "bin").mkdir()
    for name in ("sipc", "python", "python3"):
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\ntouch {folder}/started\n")
        program.chmod(0o755)
    yield lambda line: sorted(set(SHELLS[request.param](line, folder)) - {""})
    assert not (folder / "started").exists(), "the completion started a program"


@pytest.mark.parametrize("path", rendered(), ids=lambda path: path.name)
def test_the_completion_files_match_the_command_line(path):
    assert path.read_text() == rendered()[path], "renew it: cd tests; python -m docs.completions"


def test_each_completion_file_belongs_to_a_shell():
    assert set(FOLDER.iterdir()) == set(rendered())


def test_shells_offer_the_verbs(offered):
    assert set(VERBS) <= set(offered("sipc "))
    assert offered("sipc se") == ["send", "serve"]


def test_shells_offer_the_options_of_sipc_itself(offered):
    assert offered("sipc --v") == ["--version"]
    assert {flag for option in group_options() for flag in option.flags} >= {"-h", "--help"}


@pytest.mark.parametrize("verb", VERBS)
def test_shells_offer_every_option_of_a_verb_and_no_other(offered, verb):
    flags = {flag for option in verbs()[verb] for flag in option.flags if flag.startswith("--")}
    assert set(offered(f"sipc {verb} --")) == flags


def test_shells_offer_the_known_values_of_an_option(offered):
    assert offered("sipc serve --on-hangup ") == ["finish", "kill"]
    assert offered("sipc bench --fail-if p99") == ["p99", "p99.9", "p99.99"]
    assert offered("sipc send --wait ") == []


@pytest.fixture
def mixed(folder):
    """A socket, a directory and a file."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "a b.sock"))
    (folder / "a-folder").mkdir()
    (folder / "a-file").touch()


@pytest.mark.parametrize("before", ["", "-q ", "--json "], ids=["first", "short", "long"])
def test_shells_offer_sockets_and_folders_for_a_path(offered, mixed, before):
    found = [name.replace("\\", "") for name in offered(f"sipc probe {before}a")]
    assert sorted(found) == ["a b.sock", "a-folder"]


def test_shells_offer_any_file_for_a_file(offered, mixed):
    found = [name.replace("\\", "") for name in offered("sipc send -o a")]
    assert sorted(found) == ["a b.sock", "a-file", "a-folder"]


def test_shells_offer_commands_for_a_command(offered):
    assert "sort" in offered("sipc serve --exec sor")


def test_shells_offer_several_paths_for_probe(offered, mixed):
    for before in ("x ", "x -q y ", "-t 1s x "):
        found = [name.replace("\\", "") for name in offered(f"sipc probe {before}a")]
        assert sorted(found) == ["a b.sock", "a-folder"]


def test_shells_offer_a_command_after_the_paths_of_probe(offered, mixed):
    assert "sort" in offered("sipc probe x y -- sor")
    found = [name.replace("\\", "") for name in offered("sipc probe -q x -- cat a")]
    assert sorted(found) == ["a b.sock", "a-file", "a-folder"]


def test_bash_completes_values_after_an_equals_sign(folder):
    assert offered_by_bash("sipc serve --on-hangup = k", folder) == ["kill"]
    assert offered_by_bash("sipc serve --on-hangup =", folder) == ["kill", "finish"]


def test_zsh_completes_values_after_an_equals_sign(folder):
    if not shutil.which("zsh"):
        pytest.skip("needs zsh")
    assert set(offered_by_zsh("sipc serve --on-hangup=k", folder)) == {"kill"}


def test_bash_offers_one_path_only(folder, mixed):
    assert sorted(offered_by_bash("sipc send -m 1s a", folder)) == ["a b.sock", "a-folder"]
    assert offered_by_bash("sipc send x a", folder) == [""]


def test_bash_expands_a_tilde(folder, mixed):
    assert sorted(offered_by_bash("sipc probe ~/a", folder)) == ["~/a b.sock", "~/a-folder"]
