"""Choosing among candidate forecasts: functions of arrays that know no model."""
