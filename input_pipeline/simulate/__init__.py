"""Data that are made on the spot, from a seed, by a known rule."""
