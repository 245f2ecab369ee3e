#!/usr/bin/env bash
# Several processes on one machine, as one job.
#
#   launch/local.sh N --config=configs/X.py --workdir=DIR [more flags]
#
# Process 0 prints as usual; the others' lines carry their number. SIGTERM and
# SIGINT are passed on to all; when one process fails, the others are stopped
# and its status is returned. On CPU each process has one device unless
# XLA_FLAGS says otherwise.
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
    # Process substitution keeps $! the process itself, so that it can be
    # signalled.
    STJAX_PROCESS_ID=$i "$python" -m stjax.main "$@" \
      > >(sed -u "s/^/[$i] /") 2>&1 &
  fi
  pids+=($!)
done

pass_on() { kill -s "$1" "${pids[@]}" 2>/dev/null; }
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

status=0
left=$count
while [ "$left" -gt 0 ]; do
  # A trapped signal ends `wait` early; the processes are then still there.
  wait -n "${pids[@]}"
  code=$?
  left=0
  for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null && left=$((left + 1)); done
  if [ "$code" -ne 0 ] && [ "$code" -lt 128 ] && [ "$status" -eq 0 ]; then
    status=$code
    pass_on KILL
  fi
done
for pid in "${pids[@]}"; do
  wait "$pid" 2>/dev/null
  code=$?
  [ "$status" -eq 0 ] && [ "$code" -ne 127 ] && status=$code
done
exit "$status"
