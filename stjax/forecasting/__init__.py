"""Long forecasts, which are made piece by piece, and their labelled stores."""
