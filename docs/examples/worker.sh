#!/bin/sh
# A worker program for acode: POSIX shell, with nothing but the usual tools.
#
#     acode task submit --type custom --action wc --params '{"path": "/etc/services"}' --program 'sh /path/to/worker.sh'
#
# It is started once for each worker and does one task after another. docs/protocol.md, section 'Worker programs', says
# what passes over its standard input and output.
#
# What it cannot do: a shell has no JSON. `field` reads texts and numbers out of the line, as long as a text has no quote,
# backslash or line end in it and its key stands nowhere else before it; keys of the payload are therefore looked for behind
# "payload". For anything more let jq, or another language, read the line.

set -u

# The value of a key in $line: `field KEY`.
field() {
    printf '%s' "$line" | sed -n 's/.*"'"$1"'":\("\([^"]*\)"\|\([-0-9.][-0-9.eE+]*\)\).*/\2\3/p'
}

# A text as JSON: quotes and backslashes escaped, other control characters dropped, line ends as \n.
quote() {
    printf '%s' "$1" | tr -d '\000-\010\013-\037' | sed 's/\\/\\\\/g; s/"/\\"/g; s/	/\\t/g' | awk '{ printf "%s%s", sep, $0; sep = "\\n" }'
}

# One message, in one write: `say TYPE ID REST-OF-OBJECT`.
say() {
    printf '{"type":"%s","id":"%s"%s}\n' "$1" "$2" "$3"
}

# The actions. Standard output of each is its answer: one JSON value. It fails with what it writes on descriptor 3. Progress
# goes straight to the worker, by descriptor 4.
act_wc() {
    say progress "$id" ',"percent":10,"message":"counting"' >&4
    path=$(field path)
    [ -r "$path" ] || { echo "cannot read '$path'" >&3; return 1; }
    # shellcheck disable=SC2046
    set -- $(wc -lwc <"$path")
    say progress "$id" ',"percent":100,"message":"counted"' >&4
    printf '{"lines":%s,"words":%s,"bytes":%s,"pid":%s}' "$1" "$2" "$3" "$$"
}

act_sleep() {
    seconds=$(field seconds)
    # In the place of this process, so that a cancellation ends it.
    exec sleep "$seconds" >&2
}

# Does the task in $line. The answer is written by this process alone, whatever becomes of the child.
run() {
    id=$(field id)
    scratch=$(field scratch)
    name=$(field name)
    case $name in
    wc | sleep) ;;
    *)
        say error "$id" ",\"error\":\"there is no action '$(quote "$name")' here: there are wc, sleep\""
        return
        ;;
    esac
    # The payload's own keys only, for what follows.
    line=${line#*\"payload\":}
    watch_over "act_$name" &
    child=$! started='' why=''
    while IFS= read -r event <&5; do
        case $event in
        "started") started=yes ;;
        "done "*) break ;;
        *'"type":"cancel"'*) why=$(line=$event; field why) ;;
        *'"type":"shutdown"'* | gone) why=shutdown leaving=yes ;;
        esac
        [ -z "$started" ] || [ -z "$why" ] || kill "$child" 2>/dev/null
    done
    wait "$child"
    if [ -n "$why" ]; then
        say error "$id" ",\"error\":\"told to end ($why)\""
    elif [ "${event#done }" -eq 0 ]; then
        answer=$(tr -d '\n' <"$scratch/.answer")
        say result "$id" ",\"payload\":${answer:-null}"
    else
        say error "$id" ",\"error\":\"$(quote "$(cat "$scratch/.error")")\""
    fi
}

# Runs an action in a process of its own, ends it when it is told to end itself, and tells of its end.
watch_over() {
    inner=''
    trap '[ -z "$inner" ] || kill "$inner" 2>/dev/null' TERM
    "$1" 4>&1 >"$scratch/.answer" 3>"$scratch/.error" </dev/null &
    inner=$!
    echo started >&5
    wait "$inner"
    code=$?
    # A wait that a signal has cut short is not the end.
    [ "$code" -le 128 ] || wait "$inner" 2>/dev/null
    echo "done $code" >&5
}

# What the worker says comes through a FIFO, so that one place can be listened to for that and for the end of an action.
folder=$(mktemp -d) || exit 1
mkfifo "$folder/lines" || exit 1
exec 5<>"$folder/lines" 6<&0
rm -r "$folder"
{
    while IFS= read -r heard <&6; do printf '%s\n' "$heard" >&5; done
    echo gone >&5
} &

leaving=''
printf '{"type":"ready"}\n'
while [ -z "$leaving" ] && IFS= read -r line <&5; do
    case $line in
    *'"type":"task"'*) run ;;
    gone | *'"type":"shutdown"'*) break ;;
    esac
done
