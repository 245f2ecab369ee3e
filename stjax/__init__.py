"""stjax: spatiotemporal forecasting in JAX, from data to scored forecast."""
