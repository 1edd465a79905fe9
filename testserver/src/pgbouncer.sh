# Keeps one PgBouncer for the process at the other end of standard input, and removes every trace of it when that end
# closes. Arguments: its folder, which holds pgbouncer.ini, and the program.
#
# An order is a line on standard input: `start PORT` or `kill`; the port is in pgbouncer.ini. Each is answered by one line
# on standard output, which starts with `ok` when it was carried out.
#
# Only the process that was started here is ever signalled, and only while it is still a child of this shell.
set -u
folder=$1 program=$2
log=$folder/log
pid=
# What a loop waits at most, in rounds of 20 ms: an answer is late rather than missing.
patience=3000
trap '' HUP INT PIPE TERM

# What it says when it accepts connections, and when it gives up.
last_word() { grep -e 'process up: ' -e ' FATAL ' "$log" | sed -n "$words,\$p" | tail -n 1; }

start() {
    [ -z "$pid" ] || return 1
    words=$(($(grep -c -e 'process up: ' -e ' FATAL ' "$log") + 1))
    "$program" "$folder/pgbouncer.ini" </dev/null >>"$log" 2>&1 &
    pid=$!
    round=0
    while [ $round -lt $patience ]; do
        case $(last_word) in
        *'process up: '*) return 0 ;;
        *' FATAL '*) break ;;
        esac
        sleep 0.02
        round=$((round + 1))
    done
    end
    return 1
}

# It has nothing to lose, and no children.
end() {
    [ -n "$pid" ] || return 0
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    pid=
}

answer() { if "$@"; then echo "ok $pid"; else echo "failed"; fi; }

while read -r order _; do
    case $order in
    start) answer start ;;
    kill) answer end ;;
    *) echo "unknown order" ;;
    esac
done

end
rm -rf "$folder"
