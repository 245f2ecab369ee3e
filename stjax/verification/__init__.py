"""Baselines, tables and figures of forecasts that are scored."""
