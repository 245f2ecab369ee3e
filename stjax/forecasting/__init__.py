"""Long forecasts, piece by piece, and their labelled stores."""
