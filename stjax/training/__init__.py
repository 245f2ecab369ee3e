"""The train step, its state, and the checkpoints and logs of a run."""
