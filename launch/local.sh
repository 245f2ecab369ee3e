#!/usr/bin/env bash
# This runs one job as several processes on one machine:
#
#   launch/local.sh N --config=configs/X.py --workdir=DIR [more flags]
#
# Process 0 prints as usual, and the lines of the others begin with their number.
# SIGTERM and SIGINT are passed on to all processes. When one process fails, the
# others are stopped, and its status is returned. On CPU each process has one
# device unless XLA_FLAGS says otherwise.
set -u
if [ $# -lt 2 ] || ! [ "$1" -ge 1 ] 2>/dev/null; then
  echo "usage: launch/local.sh N --config=configs/X.py --workdir=DIR ..." >&2
  exit 2
fi
count=$1
shift
python=${PYTHON:-python}
port=${STJAX_PORT:-$("$python" -c '
import socket
with socket.socket() as s:
  s.bind(("localhost", 0))
  print(s.getsockname()[1])')}

export STJAX_COORDINATOR="localhost:$port" STJAX_NUM_PROCESSES=$count
pids=()
for ((i = 0; i < count; i++)); do
  if [ "$i" -eq 0 ]; then
    STJAX_PROCESS_ID=0 "$python" -m stjax.main "$@" &
  else
    # With a pipe, $! would be sed; with process substitution it is the process
    # itself, which can then be signalled.
    STJAX_PROCESS_ID=$i "$python" -m stjax.main "$@" \
      > >(sed -u "s/^/[$i] /") 2>&1 &
  fi
  pids+=($!)
done

pass_on() { kill -s "$1" "${pids[@]}" 2>/dev/null; }
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

status=0
running=("${pids[@]}")
while [ ${#running[@]} -gt 0 ]; do
  # A trapped signal ends `wait` early, while the processes are still running.
  wait -n "${running[@]}"
  still=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      still+=("$pid")
      continue
    fi
    wait "$pid"
    code=$?
    if [ "$code" -ne 0 ] && [ "$status" -eq 0 ]; then
      status=$code
      pass_on KILL
    fi
  done
  running=("${still[@]}")
done
exit "$status"
