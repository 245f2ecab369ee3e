#!/usr/bin/env bash
# This runs the same command on every host of a TPU pod slice:
#
#   TPU=name ZONE=zone launch/tpu_pod.sh --config=configs/X.py \
#     --workdir=/mnt/shared/runs/x
#
# It needs the gcloud client. Every host needs a checkout of this project in
# REMOTE_DIR (default: stjax), with a .venv that the project is installed in. The
# work directory must be a folder that all hosts share; a bucket must be mounted.
set -eu
: "${TPU:?set TPU to the name of the pod slice}"
: "${ZONE:?set ZONE to its zone}"
remote_dir=${REMOTE_DIR:-stjax}
arguments=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd $remote_dir && . .venv/bin/activate && \
STJAX_DISTRIBUTED=auto exec python -m stjax.main$arguments"
