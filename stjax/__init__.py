"""stjax: spatiotemporal forecasting in JAX, from raw data to scored forecast."""
