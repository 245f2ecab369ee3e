#!/usr/bin/env bash
# One process per GPU on a Slurm cluster:
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 \
#     launch/slurm.sh --config=configs/X.py --workdir=DIR
#
# The same command, submitted again, goes on from the last checkpoint. Slurm
# sends SIGTERM two minutes before the time limit: the run saves and exits 0,
# and --requeue brings it back.
#SBATCH --job-name=stjax
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%j.out
set -eu
export STJAX_DISTRIBUTED=auto
# exec: the signal reaches srun, which hands it to every task.
exec srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m stjax.main "$@"
