#!/bin/sh
# Every CHAOS_INTERVAL seconds kills, pauses or stops one container of the project, one of those that match CHAOS_VICTIMS,
# and brings it back CHAOS_DURATION seconds later: one fault at a time, which Understudy must survive without two nodes
# ever serving. Ended in the midst of a fault (docker compose stop chaos), it mends that first.
set -eu
project=${CHAOS_PROJECT:?the name of the Compose project}
victim=
cure=

# Names of the project's containers; arguments of docker ps beside it.
containers() {
    docker ps --filter "label=com.docker.compose.project=$project" --filter label=com.docker.compose.oneoff=False \
        --format '{{.Names}}' "$@" | grep -v chaos
}

# Brings the victim back, and whoever ended because of it: the engine starts nobody again whose network namespace belongs
# to a container that is down.
mend() {
    if [ -n "$victim" ]; then
        docker "$cure" "$victim" >/dev/null || echo "$(date -u +%T) $victim: not brought back"
        containers --filter status=exited | xargs -r docker start >/dev/null || echo "$(date -u +%T) some stay down"
        echo "$(date -u +%T) $cure $victim: done"
        victim=
    fi
}
trap 'mend; exit 0' TERM INT

# A shell hears a signal only between its commands, and while it waits.
rest() {
    sleep "$1" &
    wait $!
}

while rest "${CHAOS_INTERVAL:-20}"; do
    victim=$(containers | grep -E "${CHAOS_VICTIMS:-.}" | shuf -n 1)
    fault=$(printf 'kill\npause\nstop\n' | shuf -n 1)
    if [ "$fault" = pause ]; then cure=unpause; else cure=start; fi
    echo "$(date -u +%T) $fault $victim"
    docker "$fault" "$victim" >/dev/null || echo "$(date -u +%T) $victim: not struck"
    rest "${CHAOS_DURATION:-5}"
    mend
done
