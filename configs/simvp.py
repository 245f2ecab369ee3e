"""The options of the SimVP network, which all SimVP configs share."""

import ml_collections


def network(**changes) -> ml_collections.ConfigDict:
  """Returns the options of SimVP, at a size that suits two CPU cores.

  Args:
    **changes: options that differ from these values.
  """
  options = ml_collections.ConfigDict(
    {
      "name": "simvp",
      "translator": "gsta",
      "spatial_features": 16,
      "temporal_features": 64,
      "spatial_depth": 2,  # H and W must be divisible by 2^(spatial_depth / 2).
      "temporal_depth": 4,
      "mlp_ratio": 4.0,
      "dropout": 0.0,
      "drop_path": 0.0,
      "encoder_kernel": 3,
      "decoder_kernel": 3,
      "padding_mode": "zeros",  # Or "circular".
      # Computes blocks again in the backward pass, which saves memory.
      "remat": False,
    }
  )
  options.update(changes)
  return options
