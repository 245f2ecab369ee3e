"""Layers and helpers that two or more networks share."""
