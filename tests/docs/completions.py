"""Generates the completions for bash, zsh and fish from the click commands.

`cd tests; python -m docs.completions` renews them; a test compares them. They are shell code with
all names in it, so that a completion does not start Python.
"""

from __future__ import annotations

import re
from pathlib import Path

from docs.commandline import Option, group_options, verbs
from helpers.paths import ROOT

from simpleipc_cli.bench.conditions import KINDS
from simpleipc_cli.cli.parse import VERBS

FOLDER = ROOT / "completions"
MADE = "# Made from the command line itself by: cd tests; python -m docs.completions\n"

FIGURES = [figure for figure in KINDS if "." not in figure or figure.startswith("p99.9")]
"""The figures that are offered for --fail-if; those of parts of a request would be too many."""


def rendered() -> dict[Path, str]:
    """Return the content of each file."""
    return {FOLDER / "sipc.bash": bash(), FOLDER / "_sipc": zsh(), FOLDER / "sipc.fish": fish()}


def _words(option: Option) -> tuple[str, ...] | None:
    """Return the possible values of an option, if there is a list of them."""
    return tuple(FIGURES) if option.value == "EXPR" else option.choices or None


BASH_HELPERS = """\
_sipc_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

# Sockets, and directories that may contain sockets.
_sipc_paths() {
    local path
    compopt -o filenames 2>/dev/null
    while IFS= read -r path; do
        # The word may begin with a tilde, which [[ does not expand.
        if [[ -S ${path/#\\~/$HOME} || -d ${path/#\\~/$HOME} ]]; then
            COMPREPLY+=("$path")
        fi
    done < <(compgen -f -- "$1")
}

# The name of a command, or a file for one of its arguments.
_sipc_command() {
    if (($2 == 1)); then
        mapfile -t COMPREPLY < <(compgen -A command -A file -- "$1")
    else
        _sipc_files "$1"
    fi
}

_sipc_words() {
    mapfile -t COMPREPLY < <(compgen -W "$2" -- "$1")
}
"""


def bash() -> str:
    """Return the completion for bash, with or without the package bash-completion."""
    cases = "".join(_bash_verb(verb, options) for verb, options in verbs().items())
    own = " ".join(flag for option in group_options() for flag in option.flags)
    return f"""\
# bash completion for sipc(1)
{MADE}
{BASH_HELPERS}
_sipc() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local verb='' options='' valued='' number named=0 command=0
    COMPREPLY=()
    # --option=value is split into three words.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    for ((number = 1; number < COMP_CWORD; number++)); do
        case ${{COMP_WORDS[number]}} in
            {" | ".join(VERBS)}) verb=${{COMP_WORDS[number]}}; break ;;
        esac
    done
    # `probe` accepts several paths, and a command after --.
    if [[ $verb == probe ]]; then
        for ((command = number + 1; command < COMP_CWORD; command++)); do
            if [[ ${{COMP_WORDS[command]}} == -- ]]; then
                _sipc_command "$cur" $((COMP_CWORD - command))
                return
            fi
        done
    fi
    case $verb in
        '')
            _sipc_words "$cur" '{" ".join(VERBS)} {own}'
            return
            ;;
{cases}    esac
    if [[ $cur == -* ]]; then
        _sipc_words "$cur" "$options"
        return
    fi
    # Offer a path; the other verbs accept only one.
    for ((number++; number < COMP_CWORD; number++)); do
        before=${{COMP_WORDS[number - 1]}}
        case ${{COMP_WORDS[number]}} in
            = | -*) ;;
            *) [[ $before == = || $valued == *" $before "* ]] || named=1 ;;
        esac
    done
    [[ $named == 1 && $verb != probe ]] || _sipc_paths "$cur"
}}

complete -F _sipc sipc
"""


def _bash_verb(verb: str, options: list[Option]) -> str:
    """Return the branch for a verb."""
    lines = []
    by_action: dict[str, list[str]] = {}
    for option in options:
        if option.value is not None:
            by_action.setdefault(_bash_action(option), []).extend(option.flags)
    for action, flags in by_action.items():
        lines.append(f"                {' | '.join(flags)}) {action}return ;;")
    every = " ".join(flag for option in options for flag in option.flags)
    valued = " ".join(flag for option in options if option.value for flag in option.flags)
    inner = "\n".join(lines)
    return f"""\
        {verb})
            case $before in
{inner}
            esac
            options='{every}'
            valued=' {valued} '
            ;;
"""


def _bash_action(option: Option) -> str:
    if words := _words(option):
        nospace = "compopt -o nospace 2>/dev/null; " if option.value == "EXPR" else ""
        return f"""{nospace}_sipc_words "$cur" '{" ".join(words)}'; """
    if option.value == "FILE":
        return '_sipc_files "$cur"; '
    if option.value == "CMD":
        return '_sipc_command "$cur" 1; '
    return ""


def zsh() -> str:
    """Return the completion for zsh, a file _sipc on its fpath."""
    verb_lines = "".join(f"                '{verb}:{_zsh_text(t)}'\n" for verb, t in VERBS.items())
    cases = "".join(_zsh_verb(verb, options) for verb, options in verbs().items())
    return f"""\
#compdef sipc
{MADE}
# Sockets, and directories that may contain sockets.
_sipc_paths() {{
    _path_files -g '*(=,/)'
}}

_sipc_figures() {{
    compadd -S '' -- {" ".join(FIGURES)}
}}

_sipc() {{
    local curcontext=$curcontext state line
    local -A opt_args
    _arguments -C \\
{_zsh_options(group_options())}\
        '1:verb:->verb' \\
        '*::argument:->argument'
    case $state in
        verb)
            local -a verbs=(
{verb_lines}            )
            _describe verb verbs
            return
            ;;
    esac
    case $line[1] in
{cases}    esac
}}

_sipc "$@"
"""


def _zsh_verb(verb: str, options: list[Option]) -> str:
    """Return the branch for a verb; `probe` accepts several paths, and a command after --."""
    path, command = "1", ""
    if verb == "probe":
        path = "*"
        command = """\
            local -i dashes=$words[(i)--]
            if ((dashes < CURRENT)); then
                shift dashes words
                ((CURRENT -= dashes))
                _normal
                return
            fi
"""
    return (
        f"        {verb})\n{command}            _arguments -s \\\n{_zsh_options(options)}"
        f"                '{path}:PATH:_sipc_paths'\n            ;;\n"
    )


def _zsh_options(options: list[Option]) -> str:
    return "".join(f"                {_zsh_option(option)} \\\n" for option in options)


def _zsh_option(option: Option) -> str:
    alone = "*" if option.repeatable else f"({' '.join(option.flags)})"
    # --name=value and -nvalue are options with a value, too.
    ends = ("", "") if option.value is None else ("=", "+")
    typed = [flag + ends[flag[1] != "-"] for flag in option.flags]
    flags = typed[0] if len(typed) == 1 else "'{" + ",".join(typed) + "}'"
    help_text = f"[{_zsh_text(option.help)}]{_zsh_value(option)}"
    return f"'{alone}{flags}{help_text}'"


def _zsh_value(option: Option) -> str:
    if option.value is None:
        return ""
    if option.value == "EXPR":
        return ":EXPR:_sipc_figures"
    if words := _words(option):
        return f":value:({' '.join(words)})"
    action = {"FILE": "_files", "CMD": "_command_names"}.get(option.value, " ")
    return f":{option.value}:{action}"


def _zsh_text(text: str) -> str:
    text = re.sub(r"([\[\]:\\])", r"\\\1", text)
    return text.replace("'", "'\\''")


def fish() -> str:
    """Return the completion for fish."""
    lines = [_fish_option("__fish_use_subcommand", option) for option in group_options()]
    lines += [
        f"complete -c sipc -n __fish_use_subcommand -a {verb} -d {_fish_text(help_text)}\n"
        for verb, help_text in VERBS.items()
    ]
    lines += [
        _fish_option(f"'__fish_seen_subcommand_from {verb}'", option)
        for verb, options in verbs().items()
        for option in options
    ]
    return f"""\
# fish completion for sipc(1)
{MADE}
# Sockets, and directories that may contain sockets.
function __sipc_paths
    for path in (complete -C "'' "(commandline -ct))
        set -l name (string split -f 1 \\t -- $path)
        set -l place (string replace -r '^~' -- $HOME $name)
        if test -S "$place" -o -d "$place"
            echo $name
        end
    end
end

# The command after -- of `sipc probe`.
function __sipc_has_command
    __fish_seen_subcommand_from probe; and contains -- -- (commandline -opc)
end

function __sipc_command
    set -l words (commandline -opc)
    set -e words[1..(contains -i -- -- $words)]
    if test (count $words) -eq 0
        __fish_complete_command
    else
        complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
    end
end

complete -c sipc -f
complete -c sipc -n '__sipc_has_command' -a '(__sipc_command)'
complete -c sipc -n 'not __fish_use_subcommand; and not __sipc_has_command' -a '(__sipc_paths)'
{"".join(lines)}"""


def _fish_option(condition: str, option: Option) -> str:
    flags = [f"-l {flag[2:]}" if flag[1] == "-" else f"-s {flag[1:]}" for flag in option.flags]
    value = [] if option.value is None else [_fish_value(option)]
    help_text = ["-d", _fish_text(option.help)]
    return " ".join(["complete -c sipc -n", condition, *flags, *value, *help_text]) + "\n"


def _fish_value(option: Option) -> str:
    if words := _words(option):
        return f"-x -a '{' '.join(words)}'"
    if option.value == "FILE":
        return "-r -F"
    return "-x -a '(__fish_complete_command)'" if option.value == "CMD" else "-x"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
