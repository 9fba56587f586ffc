# fish completion for sipc(1)
# Made from the command line itself by: cd tests; python -m docs.completions

# Sockets, and directories that may contain sockets.
function __sipc_paths
    for path in (complete -C "'' "(commandline -ct))
        set -l name (string split -f 1 \t -- $path)
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
complete -c sipc -n __fish_use_subcommand -l version -d 'Show the version and exit.'
complete -c sipc -n __fish_use_subcommand -s h -l help -d 'Show this message and exit.'
complete -c sipc -n __fish_use_subcommand -a serve -d 'Answer requests with a command.'
complete -c sipc -n __fish_use_subcommand -a send -d 'Send one request and print the response.'
complete -c sipc -n __fish_use_subcommand -a probe -d 'Check whether a server is listening.'
complete -c sipc -n __fish_use_subcommand -a bench -d 'Measure the rate and the latency of an endpoint.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l exec -x -a '(__fish_complete_command)' -d 'Run CMD, a shell command line, for every request: the request is its standard input, its standard output is the response.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l worker -x -a '(__fish_complete_command)' -d 'In place of --exec: start CMD when needed, at most one per thread, and keep it running. Requests are written to its standard input, responses read from its standard output, as packets, each message ended by a flush.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l call -x -d 'In place of --exec: call a Python function in the server\'s process. It gets the request and returns the response, both bytes; or it gets two objects to read from and to write to. SIGHUP imports the module again.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l max-requests-per-worker -x -d 'Replace a worker after N requests. [x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l prestart -x -d 'Keep N idle processes of --exec started before their requests; they do not get the variables that describe the client. [x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l whole-request -d 'Start the handler only when the request is complete.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l on-hangup -x -a 'kill finish' -d 'What to do with a handler whose client closes the connection; finish applies only to complete requests. [default: kill]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l timeout -x -d 'Maximum time from a handler\'s start to its end; for a prestarted handler or a worker, from the request to the end of the response. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l kill-after -x -d 'Time between SIGTERM and SIGKILL for a handler that must end; 0 sends SIGKILL at once. [default: 2s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l threads -x -d 'Handle at most N requests at once; queue the others. [default: 8; x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l backlog -x -d 'Let N connections wait in the kernel before they are accepted. [default: 1024; 1<=x<=2147483647]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l max-request -x -d 'Maximum payload of a request. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l read-timeout -x -d 'Maximum time to wait for more bytes of a request, and for the end of a packet. [default: 30s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l write-timeout -x -d 'Maximum time without any progress while the client should read the response. [default: 60s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l mode -x -d 'Permissions of the socket, independent of the umask; to connect, a client needs write permission. [default: 0600; 0660 with --group, 0666 with --allow-user]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l group -x -d 'Give the socket to this group, a name or a number.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l allow-user -x -d 'Answer only this user\'s requests, a name or a number; repeatable. Neither root nor the server\'s own user is allowed unless named.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l count -x -d 'Stop after N requests. [x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l idle-timeout -x -d 'Stop after DURATION without a request. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l quit-on -x -d 'When a request is exactly TEXT, send an empty response and stop.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l drain-timeout -x -d 'Maximum time to answer connected clients when stopping. [default: 10s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l stdio -d 'In place of PATH: answer one request, on the connection that is standard input and output, and exit. For programs that accept connections, such as s6-ipcserver.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l background -d 'Daemonize; return once the server is listening.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l max-wait -x -d 'Maximum time until a --background server listens. [default: 60s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l pid-file -r -F -d 'Write the server\'s process id to FILE, and remove FILE at the end. A FILE in use by another server is an error.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l log-file -r -F -d 'Append the log to FILE instead of stderr; SIGHUP reopens it.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l log-format -x -a 'text json' -d 'Format of the log; json writes one object per line. [default: text]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l handler-stderr -x -a 'inherit log discard' -d 'Where handlers\' standard error goes: to the server\'s own; to the log, line by line, with the request\'s id; or nowhere. [default: log with --log-file, --background or --log-format json, else inherit]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -s q -l quiet -d 'Log warnings and errors only.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -s v -l verbose -d 'Log debug details.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l trace -d 'Log every packet to stderr with a timestamp and the start of its payload.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l trace-file -r -F -d 'Append the trace to FILE; a new file has mode 0600, as payload may be secret.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -s h -l help -d 'Show this message and exit.'
complete -c sipc -n '__fish_seen_subcommand_from send' -s d -l data -x -d 'Send TEXT without changes.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l data-file -r -F -d 'Send the content of FILE; - is standard input.'
complete -c sipc -n '__fish_seen_subcommand_from send' -s o -l output -r -F -d 'Write the response to FILE, which appears only when it is complete, or all responses are.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l connect-timeout -x -d 'Maximum time to wait while the server\'s queue is full. [default: 1s]'
complete -c sipc -n '__fish_seen_subcommand_from send' -s m -l max-time -x -d 'Maximum time of the whole command. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from send' -l wait -x -d 'Retry for at most DURATION while the endpoint is missing, refuses or is busy.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l lines -d 'Send each line as a separate request.'
complete -c sipc -n '__fish_seen_subcommand_from send' -s 0 -l null -d 'Like --lines, with NUL as separator.'
complete -c sipc -n '__fish_seen_subcommand_from send' -s j -l jobs -x -d 'Have at most N requests in flight, with --lines or --null. [default: 1; x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from send' -l spawn -x -a '(__fish_complete_command)' -d 'If no server listens, start CMD, a shell command line, and wait until it listens: at most 10s, or the time of --wait.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l expect -x -d 'Exit with status 10 unless the response is TEXT; a newline at the end of either is ignored.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l expect-regex -x -d 'Exit with status 10 unless RE, in Python\'s syntax, matches within the response.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l trace -d 'Log every packet to stderr with a timestamp and the start of its payload.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l trace-file -r -F -d 'Append the trace to FILE; a new file has mode 0600, as payload may be secret.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l stats -d 'Print statistics to stderr at the end, also after a failure: one JSON object.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l progress -l no-progress -d 'Show progress. [default: on a terminal, after one second]'
complete -c sipc -n '__fish_seen_subcommand_from send' -s h -l help -d 'Show this message and exit.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -s q -l quiet -d 'Print nothing; see the exit status.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l json -d 'Print one JSON object, with all details; an array for several PATHs.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l wait -x -d 'Retry for at most DURATION while the endpoint is missing, refuses or is busy.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l wait-gone -x -d 'Keep probing until no server listens; then exit with status 0.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l any -d 'One PATH on which a server is listening is enough.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -s t -l timeout -x -d 'Maximum time to wait while the server\'s queue is full, and, with --data, for the response. [default: 3s]'
complete -c sipc -n '__fish_seen_subcommand_from probe' -s d -l data -x -d 'Send TEXT, and check the response.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l expect -x -d 'Exit with status 10 unless the response is TEXT; a newline at the end of either is ignored.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l expect-regex -x -d 'Exit with status 10 unless RE, in Python\'s syntax, matches within the response.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -s h -l help -d 'Show this message and exit.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s c -l concurrency -x -d 'Have at most N requests in flight. [default: 1; 100 with --rate] [1<=x<=100000]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s n -l requests -x -d 'Make N requests. [x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s z -l duration -x -d 'Run for DURATION. [default: 10s, unless -n is given]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s R -l rate -x -d 'Open loop: PER_SECOND requests are due on a fixed schedule, however slow the server is. Default is a closed loop: each client sends its next request when the response to the last one is complete.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s d -l data -x -d 'Send TEXT without changes. [default: empty]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l data-file -r -F -d 'Send the content of FILE; - is standard input.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l data-lines -r -F -d 'Send each line of FILE in turn, and begin again after the last one; - is standard input.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l data-null -r -F -d 'Like --data-lines, for records that end with a NUL byte.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l shuffle -d 'Send the lines or records in a random order, which is the same in each run.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l size -x -d 'Send a request of SIZE zero bytes.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s w -l warmup -x -d 'Run for DURATION before counting starts. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l timeout -x -d 'Maximum time of one request, also of requests in flight at the end. [default: 10s]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l processes -x -d 'Generate the load in N processes. [default: 1; 1<=x<=256]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l expect -x -d 'Count a response as failed unless it is TEXT, with or without a newline at its end.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l expect-lines -r -F -d 'Like --expect, with a line of FILE for each line or record that is sent.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l json -r -F -d 'Write the full report to FILE as JSON.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l csv -r -F -d 'Write the figures to FILE as CSV.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l markdown -r -F -d 'Write a report to FILE as Markdown.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l html -r -F -d 'Write a page with charts to FILE.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l baseline -r -F -d 'Compare with the --json report of an earlier run.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l fail-if -x -a 'min mean max stddev p50 p75 p90 p95 p99 p99.9 p99.99 rate errors error_rate requests late skipped bytes_in bytes_out' -d 'Exit with status 10 if EXPR holds, such as p99>5ms, errors>0, rate<1000. Repeatable.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s q -l quiet -d 'Print no report.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s h -l help -d 'Show this message and exit.'
