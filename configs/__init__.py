"""Runnable configs: one file for each system, with variants for its stages."""
