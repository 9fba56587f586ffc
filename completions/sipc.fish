# fish completion for sipc(1)
# Made from the command line itself by: cd tests; python -m docs.completions

# Only sockets, and folders on the way to them.
function __sipc_paths
    for path in (complete -C "'' "(commandline -ct))
        set -l name (string split -f 1 \t -- $path)
        if test -S "$name" -o -d "$name"
            echo $name
        end
    end
end

complete -c sipc -f
complete -c sipc -n '__fish_seen_subcommand_from serve send probe bench' -a '(__sipc_paths)'
complete -c sipc -n __fish_use_subcommand -l version -d 'Show the version and exit.'
complete -c sipc -n __fish_use_subcommand -s h -l help -d 'Show this message and exit.'
complete -c sipc -n __fish_use_subcommand -a serve -d 'Answer requests with a command.'
complete -c sipc -n __fish_use_subcommand -a send -d 'Send one request and print the answer.'
complete -c sipc -n __fish_use_subcommand -a probe -d 'See whether anybody is listening.'
complete -c sipc -n __fish_use_subcommand -a bench -d 'Measure how fast and how steady an endpoint answers.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l exec -x -a '(__fish_complete_command)' -d 'Run CMD, a shell command line, for every request: the request is its standard input, its standard output is the response. [required]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l threads -x -d 'Handle N requests at once; the others wait. [default: 8; x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l backlog -x -d 'Let N connections wait in the kernel before they are accepted. [default: 1024; 1<=x<=2147483647]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l mode -x -d 'Permissions of the socket, whatever the umask; who may write to it may connect. [default: 0600]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l whole-request -d 'Start the handler only when its request is complete.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l on-hangup -x -a 'kill finish' -d 'What becomes of a handler whose client has gone; finish applies to complete requests. [default: kill]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l timeout -x -d 'Longest time from a handler\'s start to its end. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l kill-after -x -d 'Time between SIGTERM and SIGKILL for a handler that has to end; 0 is no time at all. [default: 2s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l read-timeout -x -d 'Longest silence within a request, and longest time for one packet of it. [default: 30s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l write-timeout -x -d 'Longest time in which no byte moves while the client should read. [default: 60s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l max-request -x -d 'Refuse requests with more bytes of payload. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l count -x -d 'Stop when the N-th request has come. [x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -l drain-timeout -x -d 'When stopping, longest time to answer what is connected. [default: 10s]'
complete -c sipc -n '__fish_seen_subcommand_from serve' -s q -l quiet -d 'Show problems only.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -s v -l verbose -d 'Show more.'
complete -c sipc -n '__fish_seen_subcommand_from serve' -s h -l help -d 'Show this message and exit.'
complete -c sipc -n '__fish_seen_subcommand_from send' -s d -l data -x -d 'Send TEXT, exactly as it is.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l data-file -r -F -d 'Send what is in FILE; - is standard input.'
complete -c sipc -n '__fish_seen_subcommand_from send' -s o -l output -r -F -d 'Write the answer to FILE, which appears only when the answer is complete.'
complete -c sipc -n '__fish_seen_subcommand_from send' -l connect-timeout -x -d 'Longest time to wait for room in the queue of a busy server. [default: 1s]'
complete -c sipc -n '__fish_seen_subcommand_from send' -s m -l max-time -x -d 'Longest time for everything. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from send' -l wait -x -d 'Keep trying while the endpoint is missing, refuses or is busy.'
complete -c sipc -n '__fish_seen_subcommand_from send' -s h -l help -d 'Show this message and exit.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -s q -l quiet -d 'Print nothing; the exit status says it.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l json -d 'Print one JSON object, with all details.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l wait -x -d 'Keep trying while the endpoint is missing, refuses or is busy.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -l wait-gone -x -d 'Keep looking until nobody is listening any more; then the status is 0.'
complete -c sipc -n '__fish_seen_subcommand_from probe' -s t -l timeout -x -d 'Longest time to wait for room in the queue of a busy server. [default: 3s]'
complete -c sipc -n '__fish_seen_subcommand_from probe' -s h -l help -d 'Show this message and exit.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s c -l concurrency -x -d 'Have at most N requests in flight. [default: 1; 100 with --rate] [1<=x<=100000]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s n -l requests -x -d 'Make N requests. [x>=1]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s z -l duration -x -d 'Go on for so long. [default: 10s, unless there is -n]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s R -l rate -x -d 'Let requests be due on a schedule, so many a second, whatever the server does (an open loop); without it each client asks again when it has its answer (a closed loop).'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s d -l data -x -d 'Send TEXT, exactly as it is. [default: empty]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l data-file -r -F -d 'Send what is in FILE; - is standard input.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l size -x -d 'Send SIZE bytes, all of them zero.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s w -l warmup -x -d 'Make load for so long before anything is counted. [default: 0]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l timeout -x -d 'Longest time for one request; also for those in flight at the end. [default: 10s]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l processes -x -d 'Make the load in N processes. [default: 1; 1<=x<=256]'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l expect -x -d 'Count an answer as failed unless it is TEXT, a newline at its end aside.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l json -r -F -d 'Write all of it to FILE, as JSON.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l csv -r -F -d 'Write the figures to FILE, as CSV.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l markdown -r -F -d 'Write a report in Markdown.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l html -r -F -d 'Write a page with charts.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l baseline -r -F -d 'Compare with an earlier report, made with --json.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -l fail-if -x -a 'min mean max stddev p50 p75 p90 p95 p99 p99.9 p99.99 rate errors error_rate requests late skipped bytes_in bytes_out' -d 'End with status 10 if EXPR holds, such as p99>5ms, errors>0, rate<1000. Repeatable.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s q -l quiet -d 'Print no report; files and status say it.'
complete -c sipc -n '__fish_seen_subcommand_from bench' -s h -l help -d 'Show this message and exit.'
