"""What the SimVP configs share: the network's options."""

import ml_collections


def network(**changes) -> ml_collections.ConfigDict:
  """Every option of SimVP, at a size for two CPU cores."""
  options = ml_collections.ConfigDict(
    {
      "name": "simvp",
      "translator": "gsta",
      "spatial_features": 16,
      "temporal_features": 64,
      "spatial_depth": 2,  # H and W divisible by 2^(spatial_depth / 2).
      "temporal_depth": 4,
      "mlp_ratio": 4.0,
      "dropout": 0.0,
      "drop_path": 0.0,
      "encoder_kernel": 3,
      "decoder_kernel": 3,
      "padding_mode": "zeros",  # Or "circular".
      "remat": False,  # Recompute blocks in the backward pass: less memory.
    }
  )
  options.update(changes)
  return options
