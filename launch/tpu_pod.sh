#!/usr/bin/env bash
# The same command on every host of a TPU pod slice.
#
#   TPU=name ZONE=zone launch/tpu_pod.sh --config=configs/X.py \
#     --workdir=gs://bucket/runs/x
#
# Needs the gcloud client, and the project installed under REMOTE_DIR on every
# host (see docs/launch.md). The work directory must be on storage that all
# hosts share.
set -eu
: "${TPU:?set TPU to the name of the pod slice}"
: "${ZONE:?set ZONE to its zone}"
remote_dir=${REMOTE_DIR:-stjax}
arguments=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd $remote_dir && . .venv/bin/activate && \
STJAX_DISTRIBUTED=auto exec python -m stjax.main$arguments"
