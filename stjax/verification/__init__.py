"""Verification: baselines, scores, tables and figures of forecasts."""
