#!/bin/sh
# Runs the programs of `command` trials, on behalf of a worker. Needs a POSIX shell and no other program.
#
#   sh command_agent.sh FOLDER SHELL...   Takes requests from the FIFO FOLDER/requests, one folder a line, until those who write
#                                 to it are gone. Each is served by a shell of its own (SHELL...: /bin/sh), because a
#                                 shell gives process groups only to its own children, not to a subshell's.
#
# A request's folder holds a value a file, each with a newline after it: no value is ever read as shell.
#   argv/0, argv/1, ...  the program and its arguments
#   env/NAME             its variables
#   workdir              where it runs
#   output               the file that its output is appended to; without one, only say whether the program exists
#   answers              FIFO to those who asked: "ended CODE"; or else "found", "missing", "no folder" (the workdir),
#                        "not executable", "beside" (in the workdir, where only a path would find it)
#   signals              FIFO from those who asked: signals for the program's process group, a name a line. When nobody
#                        writes to it any more, the group is killed.
#
# Variables begin with hp_, lest one of the program's be changed.

hp_newline='
'

# The value in the file $1, as hp_value.
hp_read() {
    hp_value='' hp_between=''
    while IFS= read -r hp_line; do
        hp_value=$hp_value$hp_between$hp_line
        hp_between=$hp_newline
    done <"$1"
}

# Becomes the program; or, with `check`, writes whether it could.
hp_become() {
    hp_check=$1
    set --
    while [ -f "$hp_folder/argv/$#" ]; do
        hp_read "$hp_folder/argv/$#"
        set -- "$@" "$hp_value"
    done
    for hp_file in "$hp_folder"/env/*; do
        [ -f "$hp_file" ] || continue
        hp_read "$hp_file"
        export "${hp_file##*/}=$hp_value"
    done
    hp_read "$hp_folder/workdir"
    cd "$hp_value" >/dev/null || { # where it goes by CDPATH it says so
        [ -z "$hp_check" ] || echo 'no folder'
        exit 126
    }
    if [ "$hp_check" ]; then
        hp_answer=missing
        case $1 in
        */*)
            [ ! -f "$1" ] || hp_answer='not executable'
            [ ! -f "$1" ] || [ ! -x "$1" ] || hp_answer=found
            ;;
        *)
            [ ! -f "$1" ] || hp_answer=beside
            ! command -v "$1" >/dev/null || hp_answer=found
            ;;
        esac
        echo "$hp_answer"
    elif [ "$hp_setsid" ]; then
        exec setsid "$@"
    else
        exec "$@"
    fi
}

# Old shells refuse job control without a terminal; most images that have one also have setsid. Without either, signals
# reach the program and not its children.
hp_run() {
    hp_read "$hp_folder/output"
    hp_setsid='' hp_sign='-'
    set -m 2>/dev/null
    case $- in
    *m*) ;;
    *) command -v setsid >/dev/null && hp_setsid=yes || hp_sign='' ;;
    esac
    hp_become '' </dev/null >>"$hp_value" 2>&1 3<&- 4>&- 5>&- &
    hp_group=$!
    set +m
    exec 2>/dev/null # where shells remark that a child was killed
    (
        exec 4>&- 5>&-
        while read -r hp_name; do kill -s "$hp_name" -- "$hp_sign$hp_group"; done
        kill -s KILL -- "$hp_sign$hp_group"
    ) <&3 &
    hp_watcher=$!
    wait "$hp_group"
    hp_code=$?
    kill "$hp_watcher"
    [ "$hp_sign" ] && kill -s KILL -- "-$hp_group" # whatever it left running
    echo "ended $hp_code" >&4
}

if [ "$1" = serve ]; then
    hp_folder=$2
    exec 3<"$hp_folder/signals" 4>"$hp_folder/answers" # waits where those who asked are gone: the agent ends that
    exec 5>"$3"
    if [ -f "$hp_folder/output" ]; then
        hp_run
    else
        (hp_become check 2>/dev/null >&4)
    fi
    echo "ended $$" >&5
    exit 0
fi

hp_requests=$1/requests hp_serving=''
shift
[ $# -gt 0 ] || set -- /bin/sh
hp_end() {
    [ -z "$hp_serving" ] || kill -s KILL $hp_serving
    exit 0
}
trap hp_end TERM
exec 3<"$hp_requests"
while IFS= read -r hp_request <&3; do
    case $hp_request in
    'ended '*)
        hp_ended=${hp_request#ended } hp_left=''
        wait "$hp_ended"
        for hp_process in $hp_serving; do
            [ "$hp_process" = "$hp_ended" ] || hp_left="$hp_left $hp_process"
        done
        hp_serving=$hp_left
        ;;
    *)
        "$@" "$0" serve "$hp_request" "$hp_requests" 3<&- &
        hp_serving="$hp_serving $!"
        ;;
    esac
done
hp_end
