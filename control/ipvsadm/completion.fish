# Completion of uvsadm's arguments for fish. Made by: uvsadm completion fish

# What uvsd has now, which may be nothing.
function __uvsadm_ask
    set -l words (commandline -opc)
    set -l i (contains -i -- --socket $words)
    and set -l socket --socket $words[(math $i + 1)]
    uvsadm $socket $argv 2>/dev/null
end
function __uvsadm_services
    __uvsadm_ask save | string replace -rf '^-A \S+ (\S+) .*' '$1'
end
function __uvsadm_servers
    __uvsadm_ask save | string replace -rf '^-a .* -r (\S+) .*' '$1' | sort -u
end
function __uvsadm_settings
    __uvsadm_ask sysctl -a | string replace -r ' = .*' ''
end

# Says that the words so far are those of its first argument; with a second one, that letters may come too.
function __uvsadm_in
    set -l words (commandline -opc)
    set -e words[1]
    if test "$words[1]" = --socket
        set -e words[1..2]
    else if string match -q -- '--socket=*' "$words[1]"
        set -e words[1]
    end
    switch "$words[1]"
        case ''
            test -z "$argv[1]"
        case '-*'
            test (count $argv) -gt 1
        case mark
            if test (count $words) -gt 1
                test "$argv[1]" = "mark $words[2]"
            else
                test "$argv[1]" = mark
            end
        case '*'
            test "$argv[1]" = "$words[1]"
    end
end

complete -c uvsadm -f
complete -c uvsadm -n '__uvsadm_in ""' -l socket -r -d "where uvsd listens"
@SYNTAX@
