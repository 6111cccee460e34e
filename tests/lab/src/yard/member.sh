#!/bin/sh
# The exec driver of tests and demo: a member is a file, and whoever tends the yard starts and stops what it stands for.
#   member.sh FOLDER    FOLDER/members/<node> holds the key; FOLDER/calls has a line for each start; while FOLDER/hold
#                       is there a start has begun and does not come to its end; a start fails, hangs or lies while a
#                       file of that name is there, and while FOLDER/halves is there a start is on its way and leaves half a
#                       member behind, which does not run until a later start has made it whole
folder=$1
question=$(cat)
field() { printf '%s' "$question" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
node=$(field node)
case $(field action) in
list)
    separator=
    printf '['
    for file in "$folder"/members/*; do
        [ -e "$file" ] || continue
        key=$(cat "$file")
        state='"running"'
        case $key in half:*)
            state='"ended","cause":"it has no executor"'
            if [ -e "$folder/halves" ]; then state='"starting"'; fi
            ;;
        esac
        printf '%s{"node":"%s","state":%s,"key":"%s"}' "$separator" "${file##*/}" "$state" "${key#half:}"
        separator=,
    done
    printf ']'
    ;;
start)
    printf '%s began\n' "$node" >> "$folder/calls"
    if [ -e "$folder/fails" ]; then echo 'the quota is spent' >&2; exit 3; fi
    if [ -e "$folder/hangs" ]; then sleep 600; fi
    if [ -e "$folder/lies" ]; then exit 0; fi
    if [ -e "$folder/halves" ]; then
        printf 'half:%s' "$(field key)" > "$folder/members/$node"
        while [ -e "$folder/halves" ]; do sleep 0.05; done
        exit 0
    fi
    while [ -e "$folder/hold" ]; do sleep 0.05; done
    printf '%s' "$(field key)" > "$folder/new.$$"
    case $(cat "$folder/members/$node" 2>/dev/null) in half:*) rm -f "$folder/members/$node" ;; esac
    # One of several at the same time makes it.
    if ln "$folder/new.$$" "$folder/members/$node" 2>/dev/null; then printf '%s made\n' "$node" >> "$folder/calls"; fi
    rm "$folder/new.$$"
    ;;
remove)
    rm -f "$folder/members/$node"
    ;;
*)
    echo "what is $(field action)?" >&2
    exit 2
    ;;
esac
