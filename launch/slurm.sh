#!/usr/bin/env bash
# This runs one process per GPU on a Slurm cluster:
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 \
#     launch/slurm.sh --config=configs/X.py --workdir=DIR
#
# If the same command is submitted again, it goes on from the last checkpoint.
# Slurm signals this script two minutes before the time limit or a pre-emption.
# The run then saves and exits 0, and the job is put back into the queue.
#SBATCH --job-name=stjax
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -u
export STJAX_DISTRIBUTED=auto
stopped=
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m stjax.main "$@" &
step=$!
trap 'stopped=1; kill -TERM "$step"' TERM
wait "$step"
status=$?
if [ -n "$stopped" ]; then
  wait "$step"  # The signal ended the first wait, not the run.
  status=$?
  [ "$status" -eq 0 ] && scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
