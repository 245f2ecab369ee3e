"""The train step, its state, and what is kept of it."""
