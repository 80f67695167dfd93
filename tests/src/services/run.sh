#!/usr/bin/env bash
# Runs one real server on loopback, in a directory of its own, until whoever started it is gone.
#
#   run.sh seaweedfs|aws|ceph|postgres|recovery|kafka|connect [--stay]
#
# What a client needs comes as NAME=value lines on standard output and ends with `# ready`; what the server says goes to a log
# whose end is printed when it does not start. The server ends at end of file on standard input (`--stay`: only on SIGTERM).
# A pipe breaks however its other end dies, so a test that is killed leaves no server and no file behind.
#
# Each server is a file beside this one. It defines `start`, which calls `serve` for every process, `ready`, which is true once
# a client would be answered, `describe`, which prints endpoint and keys, and, where files lie elsewhere, `sweep`.
set -euo pipefail

server=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
# shellcheck disable=SC2034 # the servers' own files read it
tools=${HINDSIGHT_TOOLS:-${HINDSIGHT_CACHE:-$root/.cache}/tools}
start_seconds_max=60
stop_signal=KILL

# Throwaway keys: the servers listen on loopback only.
# shellcheck disable=SC2034 # the servers' own files read them
access_key=hindsight secret_key=hindsight-secret

serve() { # a command: one process of the server
  "$@" >>"$log" 2>&1 </dev/null &
  pids+=($!)
}

free_ports() { # how many
  python3 -c '
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for each in held:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in held))' "$1"
}

answers() { # port, path, the status that means yes
  # In a subshell: a connection that is refused ends it, and with it the file descriptor.
  [[ $(ask "$1" "$2" 2>/dev/null) == "$3" ]]
}

ask() { # port, path: prints the status of the answer
  exec 4<>"/dev/tcp/127.0.0.1/$1" || exit
  printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&4
  local status
  read -r -t 5 _ status _ <&4 && echo "$status"
}

missing() { # what is not there, what to do
  echo "$1 not found; $2" >&2
  exit 3
}

sweep() { :; }

everyone_lives() {
  local pid
  for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done
}

await_ready() {
  local deadline=$((SECONDS + start_seconds_max))
  while ((SECONDS < deadline)); do
    ready && return
    everyone_lives || return 1
    sleep 0.05
  done
  return 1
}

stop() {
  local pid
  # SIGKILL, because SeaweedFS takes half a minute over SIGTERM. By group, because the emulator's Lambda workers outlive it.
  for pid in ${pids[@]+"${pids[@]}"}; do kill "-$stop_signal" -- "-$pid" 2>/dev/null || true; done
  for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" 2>/dev/null || true; done
  pids=()
}

finish() {
  trap '' HUP INT TERM PIPE
  stop
  if [[ $state != stopped ]]; then
    echo "$server $state; the end of its log:" >&2
    tail -n 20 "$log" >&2 || true
  fi
  sweep
  rm -rf "$directory"
}

# shellcheck source=/dev/null
source "$here/$server.sh"
directory=$(mktemp -d "${TMPDIR:-/tmp}/hindsight-$server.XXXXXX")
log=$directory/log
pids=()
state='did not start'
touch "$log"
trap finish EXIT
trap 'state=stopped; exit 0' HUP INT TERM PIPE
set -m # a process group for every process of the server

for attempt in 1 2 3; do
  start
  await_ready && break
  # Between finding a free port and binding it, somebody else may have taken it. Anything else would come again.
  ((attempt < 3)) && ! everyone_lives || exit 1
  stop
done

describe
echo "SERVER_RUNNER=$$"
echo "SERVER_DIRECTORY=$directory"
echo "SERVER_PIDS=$(IFS=,; echo "${pids[*]}")"
echo "# ready"
exec >/dev/null

state='ended by itself'
if [[ ${2:-} == --stay ]]; then
  wait -n || true
else
  cat <&0 >/dev/null &
  leash=$!
  wait -n || true
  kill -0 "$leash" 2>/dev/null || state=stopped
  kill -KILL "$leash" 2>/dev/null || true
fi
[[ $state == stopped ]]
