"""Small runs, and comparing trees; for tests."""

import jax
import ml_collections
import numpy as np

from configs import diffusion_boiling, simvp_boiling, simvp_xarray

# Big enough to hold every kind of layer, small enough to compile in seconds.
TINY = {
  "num_epochs": 2.0,
  "global_batch_size": 8,
  "model.spatial_features": 4,
  "model.temporal_features": 8,
  "model.spatial_depth": 2,
  "model.temporal_depth": 2,
  "model.mlp_ratio": 2.0,
  "optimizer.learning_rate": 1e-3,
  "optimizer.clip_norm": 0.0,
  "data.normalise": "none",
  "data.num_samples": 20,
  "data.num_frames": 8,
  "data.image_size": 16,
  "data.history": 3,
  "data.horizon": 3,
  "data.stride": 10,
  "evaluation.batch_size": 8,
  "evaluation.figures": 1,
  "forecast.batch_size": 8,
  "log.every_steps": 1,
}


def tiny_config(**changes) -> ml_collections.ConfigDict:
  """The boiling config, shrunk; keys with dots written with two underscores."""
  config = simvp_boiling.get_config("default")
  config.update_from_flattened_dict(TINY)
  config.update_from_flattened_dict(
    {k.replace("__", "."): v for k, v in changes.items()}
  )
  return config


def tiny_diffusion(mean_workdir, **changes) -> ml_collections.ConfigDict:
  """The diffusion of a tiny boiling run's residuals; keys as above."""
  config = diffusion_boiling.get_config()
  config.update_from_flattened_dict(
    {k: v for k, v in TINY.items() if not k.startswith("model.")}
    | {
      "frozen.mean.init_from": str(mean_workdir),
      "model.features": 4,
      "model.groups": 2,
      "model.depth": 1,
      "method.num_steps": 5,
      "forecast.members": 3,
      "forecast.sampler.steps": 3,
    }
  )
  config.update_from_flattened_dict(
    {k.replace("__", "."): v for k, v in changes.items()}
  )
  return config


def tiny_fields(path, variable: str, **changes) -> ml_collections.ConfigDict:
  """A small network on one variable of a file; keys as above.

  It is shown one frame, trained for two and asked for five, also where the data
  end before them.
  """
  config = simvp_xarray.gridded()
  network = {"name": "fno", "features": 8, "modes_h": 1, "modes_w": 1, "depth": 1}
  network |= {"readout_features": 16, "out_channels": 1}
  config.model = ml_collections.ConfigDict(network)
  config.data.update(path=str(path), variables=(variable,), history=1, horizon=2)
  config.update_from_flattened_dict(
    {
      "global_batch_size": 8,
      "optimizer.learning_rate": 1e-2,
      "evaluation.figures": 1,
      "forecast.horizon": 5,
      "forecast.lead_chunk": 2,
      "forecast.past_data_end": True,
    }
    | {k.replace("__", "."): v for k, v in changes.items()}
  )
  return config


def tiny_flags(**changes) -> list[str]:
  """The same as command-line flags."""
  values = TINY | {k.replace("__", "."): v for k, v in changes.items()}
  return ["--config=configs/simvp_boiling.py"] + [
    f"--config.{k}={v}" for k, v in values.items()
  ]


def trees_equal(a, b) -> bool:
  """Whether two trees hold the same bits."""
  same = jax.tree.map(
    lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), _raw(a), _raw(b)
  )
  return jax.tree.all(same)


def _raw(tree):
  def raw(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.key_data(x)
    return x

  return jax.tree.map(raw, tree)
