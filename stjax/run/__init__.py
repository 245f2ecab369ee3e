"""Runs: what a config and a work directory determine together."""
