# bash completion for sipc(1)
# Made from the command line itself by: cd tests; python -m docs.completions

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
        if [[ -S ${path/#\~/$HOME} || -d ${path/#\~/$HOME} ]]; then
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

_sipc() {
    local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local verb='' options='' valued='' number named=0 command=0
    COMPREPLY=()
    # --option=value is split into three words.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((number = 1; number < COMP_CWORD; number++)); do
        case ${COMP_WORDS[number]} in
            serve | send | probe | bench) verb=${COMP_WORDS[number]}; break ;;
        esac
    done
    # `probe` accepts several paths, and a command after --.
    if [[ $verb == probe ]]; then
        for ((command = number + 1; command < COMP_CWORD; command++)); do
            if [[ ${COMP_WORDS[command]} == -- ]]; then
                _sipc_command "$cur" $((COMP_CWORD - command))
                return
            fi
        done
    fi
    case $verb in
        '')
            _sipc_words "$cur" 'serve send probe bench --version -h --help'
            return
            ;;
        serve)
            case $before in
                --exec | --worker) _sipc_command "$cur" 1; return ;;
                --call | --max-requests-per-worker | --prestart | --timeout | --kill-after | --threads | --backlog | --max-request | --read-timeout | --write-timeout | --mode | --group | --allow-user | --count | --idle-timeout | --quit-on | --drain-timeout | --max-wait) return ;;
                --on-hangup) _sipc_words "$cur" 'kill finish'; return ;;
                --pid-file | --log-file | --trace-file) _sipc_files "$cur"; return ;;
                --log-format) _sipc_words "$cur" 'text json'; return ;;
                --handler-stderr) _sipc_words "$cur" 'inherit log discard'; return ;;
            esac
            options='--exec --worker --call --max-requests-per-worker --prestart --whole-request --on-hangup --timeout --kill-after --threads --backlog --max-request --read-timeout --write-timeout --mode --group --allow-user --count --idle-timeout --quit-on --drain-timeout --stdio --background --max-wait --pid-file --log-file --log-format --handler-stderr -q --quiet -v --verbose --trace --trace-file -h --help'
            valued=' --exec --worker --call --max-requests-per-worker --prestart --on-hangup --timeout --kill-after --threads --backlog --max-request --read-timeout --write-timeout --mode --group --allow-user --count --idle-timeout --quit-on --drain-timeout --max-wait --pid-file --log-file --log-format --handler-stderr --trace-file '
            ;;
        send)
            case $before in
                -d | --data | --connect-timeout | -m | --max-time | --wait | -j | --jobs | --expect | --expect-regex) return ;;
                --data-file | -o | --output | --trace-file) _sipc_files "$cur"; return ;;
                --spawn) _sipc_command "$cur" 1; return ;;
            esac
            options='-d --data --data-file -o --output --connect-timeout -m --max-time --wait --lines -0 --null -j --jobs --spawn --expect --expect-regex --trace --trace-file --stats --progress --no-progress -h --help'
            valued=' -d --data --data-file -o --output --connect-timeout -m --max-time --wait -j --jobs --spawn --expect --expect-regex --trace-file '
            ;;
        probe)
            case $before in
                --wait | --wait-gone | -t | --timeout | -d | --data | --expect | --expect-regex) return ;;
            esac
            options='-q --quiet --json --wait --wait-gone --any -t --timeout -d --data --expect --expect-regex -h --help'
            valued=' --wait --wait-gone -t --timeout -d --data --expect --expect-regex '
            ;;
        bench)
            case $before in
                -c | --concurrency | -n | --requests | -z | --duration | -R | --rate | -d | --data | --size | -w | --warmup | --timeout | --processes | --expect) return ;;
                --data-file | --data-lines | --data-null | --expect-lines | --json | --csv | --markdown | --html | --baseline) _sipc_files "$cur"; return ;;
                --fail-if) compopt -o nospace 2>/dev/null; _sipc_words "$cur" 'min mean max stddev p50 p75 p90 p95 p99 p99.9 p99.99 rate errors error_rate requests late skipped bytes_in bytes_out'; return ;;
            esac
            options='-c --concurrency -n --requests -z --duration -R --rate -d --data --data-file --data-lines --data-null --shuffle --size -w --warmup --timeout --processes --expect --expect-lines --json --csv --markdown --html --baseline --fail-if -q --quiet -h --help'
            valued=' -c --concurrency -n --requests -z --duration -R --rate -d --data --data-file --data-lines --data-null --size -w --warmup --timeout --processes --expect --expect-lines --json --csv --markdown --html --baseline --fail-if '
            ;;
    esac
    if [[ $cur == -* ]]; then
        _sipc_words "$cur" "$options"
        return
    fi
    # Offer a path; the other verbs accept only one.
    for ((number++; number < COMP_CWORD; number++)); do
        before=${COMP_WORDS[number - 1]}
        case ${COMP_WORDS[number]} in
            = | -*) ;;
            *) [[ $before == = || $valued == *" $before "* ]] || named=1 ;;
        esac
    done
    [[ $named == 1 && $verb != probe ]] || _sipc_paths "$cur"
}

complete -F _sipc sipc
