"""Figures of forecasts and runs: pictures, animations, curves.

Every figure is made without pyplot, so nothing global changes, nothing stays in
memory, and no display is needed.
"""

from stjax.plots.curves import lead_time_curves, learning_curves
from stjax.plots.pictures import animation, picture_grid

__all__ = ("animation", "lead_time_curves", "learning_curves", "picture_grid")
