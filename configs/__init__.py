"""Runnable configs: one file per system and stage."""
