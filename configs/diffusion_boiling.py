"""Residual diffusion on the boiling plate: SimVP's mean, a UNet denoiser.

Run:    python -m stjax.main --config=configs/simvp_boiling.py \\
          --workdir=runs/boiling
        python -m stjax.main --config=configs/diffusion_boiling.py \\
          --workdir=runs/boiling_diffusion

Any mean and any denoiser can be put together like this. The work directory in
`frozen.mean.init_from` says itself which network and method are the mean; only the
data must be those that it was trained on.
"""

import ml_collections

from configs import simvp_boiling


def get_config() -> ml_collections.ConfigDict:
  c = simvp_boiling.get_config()
  c.frozen = ml_collections.ConfigDict({"mean": {"init_from": "runs/boiling"}})
  c.model = ml_collections.ConfigDict(
    dict(
      name="unet_denoiser",
      features=16,
      depth=2,
      blocks=1,
      step_dim=64,
      groups=8,
      dropout=0.0,
      padding_mode="circular",
      remat=False,
    )
  )
  c.method = ml_collections.ConfigDict(
    dict(
      name="residual_diffusion",
      mean_only=False,
      mean_dropout=False,
      scale="residual",
      scale_threshold=0.1,  # Of scale="signal".
      schedule="quadratic",
      num_steps=50,
      beta_start=1e-4,
      beta_end=0.5,
      prediction="v",
      condition_dropout=0.0,
    )
  )
  c.num_epochs = 10.0
  c.ema_decay = 0.99
  c.optimizer.learning_rate = 1e-3
  c.evaluation.update(
    conventions=("physical", "ensemble"),
    thresholds=(0.5,),
    validation_members=4,
    every_epochs=5.0,
    batch_size=1,
  )
  c.checkpoint.update(best_metric="ensemble/crps", best_mode="min")
  c.forecast.update(members=8, batch_size=1, clip_range=(0.0, 1.0))
  c.forecast.sampler.update(name="dpm++", steps=10)
  return c
