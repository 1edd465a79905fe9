# Keeps one PostgreSQL server for the process at the other end of standard input, and removes every trace of it when that
# end closes. Arguments: the server's folder, and the folder of the binaries.
#
# An order is a line on standard input: `init`, `start PORT`, `stop` or `kill`. Each is answered by one line on standard
# output, which starts with `ok` when it was carried out.
#
# Only processes that were started here are ever signalled: the postmaster while it is still a child of this shell, and
# its own children.
set -u
folder=$1 bin=$2
data=$folder/data log=$folder/log
pid=
# What a loop waits at most, in rounds of 20 ms: an answer is late rather than missing.
patience=3000
trap '' HUP INT PIPE TERM

# look PID: its state and its parent. children PID: the processes that it started.
if [ -r /proc/self/status ]; then
    look() { sed -n -e 's/^State:[[:space:]]*//p' -e 's/^PPid:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null | sed 's/ .*//'; }
    children() { grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | cut -d / -f 3; }
else
    look() { ps -o state= -o ppid= -p "$1"; }
    children() { ps -A -o pid= -o ppid= | awk -v parent="$1" '$2 == parent { print $1 }'; }
fi

# exists PID [PARENT]: whether it runs, below PARENT.
exists() {
    wanted=${2:-}
    set -- $(look "$1")
    case ${1:-Z} in Z* | X*) return 1 ;; esac
    [ -z "$wanted" ] || [ "${2:-}" = "$wanted" ]
}

running() { [ -n "$pid" ] && exists "$pid" $$; }

# until_gone PID [PARENT]: waits for its end.
until_gone() {
    round=0
    while exists "$@" && [ $round -lt $patience ]; do
        sleep 0.02
        round=$((round + 1))
    done
    ! exists "$@"
}

init() {
    "$bin/initdb" --pgdata="$data" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync \
        </dev/null >>"$log" 2>&1
}

# Ready is what the postmaster says in the eighth line of a file that starts with its own pid.
start() {
    ! running || return 1
    "$bin/postgres" -D "$data" -p "$1" </dev/null >>"$log" 2>&1 &
    pid=$!
    round=0
    while [ $round -lt $patience ]; do
        running || return 1
        set -- $(sed -n -e 1p -e 8p "$data/postmaster.pid" 2>/dev/null)
        [ "${1:-} ${2:-}" != "$pid ready" ] || return 0
        sleep 0.02
        round=$((round + 1))
    done
    return 1
}

# The postmaster stands still first, so that it neither starts nor mourns a child meanwhile.
kill_all() {
    running || return 0
    kill -STOP "$pid"
    family=$(children "$pid")
    kill -KILL $family "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    pid=
    for child in $family; do until_gone "$child" || return 1; done
}

# end SIGNAL: asks the server to end, and kills it if it does not.
end() {
    running || return 0
    kill "-$1" "$pid"
    until_gone "$pid" $$ || kill_all
    wait "$pid" 2>/dev/null
    pid=
}

answer() { if "$@"; then echo "ok $pid"; else echo "failed"; fi; }

while read -r order port; do
    case $order in
    init) answer init ;;
    start) answer start "$port" ;;
    stop) answer end INT ;;
    kill) answer kill_all ;;
    *) echo "unknown order" ;;
    esac
done

end QUIT
rm -rf "$folder"
