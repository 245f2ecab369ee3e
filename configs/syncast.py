"""SynCast: nowcasts of rain by diffusion, then preferred by FAR and by CSI.

Run:    python -m stjax.main --config=configs/syncast.py:moving_rain,base \\
          --workdir=runs/syncast/moving_rain

and so on: each stage prints the command of the next one in the end. A variant is
SET,STAGE. The stages of a set, in order:

  SET,base      a diffusion of the frames to come, given those seen
  --mode=prefer draws five members of every window of the preference split and
                pairs the one with the fewest false alarms with that with the most
  SET,dpo_far   preference optimisation on these pairs, held to the base
  SET,base,csi  with --mode=prefer: the same members, paired by CSI
  SET,spo_csi   preference optimisation on these, held to the stage before

SET is moving_rain (simulated), radar_eu or radar_mrms (give --config.data.path of
the file), sevir, hko7 or meteonet (the archives of docs/data.md). The last three
have the published sizes, and their base takes days on a GPU; the small sets take
minutes. docs/syncast.md has what was measured.

Source: Xu et al. 2025, "SynCast" (arXiv 2510.21847).
"""

import math

import ml_collections
from ml_collections import config_dict

from configs import base, nowcast, simvp_radar

ARCHIVES = ("sevir", "hko7", "meteonet")
SETS = ("moving_rain", "radar_eu", "radar_mrms", *ARCHIVES)
STAGES = ("base", "base,csi", "dpo_far", "spo_csi")
VARIANTS = tuple(f"{name},{stage}" for name in SETS for stage in STAGES)
_FOLDER = "runs/syncast"
# Rates in mm/h that HKO-7 is scored at; its pixels are 255 (dBZ + 10) / 70.
_HKO7_RATES = (0.5, 2.0, 5.0, 10.0, 30.0)


def _hko7_pixel(rate: float) -> float:
  return 255 * (15.6 * math.log10(rate) + 10 * math.log10(58.53) + 10) / 70


_THRESHOLDS = {
  "moving_rain": (1.0, 5.0),
  "radar_eu": (0.5, 1.0, 5.0),
  "radar_mrms": (0.5, 1.0, 5.0),
  "sevir": (16.0, 74.0, 133.0, 160.0, 181.0, 219.0),
  "hko7": tuple(map(_hko7_pixel, _HKO7_RATES)),
  "meteonet": (19.0, 28.0, 35.0, 40.0, 47.0),
}
# By how much the CRPS may grow in a preference, in units of the data.
_CRPS_GUARD = {
  "moving_rain": 0.05,
  "radar_eu": 0.02,
  "radar_mrms": 0.05,
  "sevir": 0.5,
  "hko7": 0.5,
  "meteonet": 0.2,
}


def _data(name: str) -> ml_collections.ConfigDict:
  """The set, as the configs of deterministic nowcasts have it."""
  if name in ARCHIVES:
    return simvp_radar.get_config(name)
  c = nowcast.get_config(name)
  if name == "moving_rain":
    c.data.transform = "log1p"
    return c
  c.data.coarsen = 8  # Cells of about 8 km, 32 x 32 of them.
  c.data.stride = 4
  c.data.augment = ("flip_h", "flip_w", "transpose")
  if name == "radar_eu":
    c.data.split.seed = 3  # The Dutch event is kept for the preferences.
  else:
    c.data.resample.every = 2  # Frames 4 minutes apart.
  return c


def _policy(published: bool) -> dict:
  return dict(
    name="diffusion",
    schedule="linear",
    num_steps=1000,
    beta_start=1e-4,
    beta_end=0.02,
    # The published epsilon takes long to learn: at the step where sampling begins,
    # what it gets wrong is multiplied by 1 / sqrt(A_950) = 97.
    prediction="epsilon" if published else "v",
  )


def _base(name: str) -> ml_collections.ConfigDict:
  c = base.get_config()
  c.data = _data(name).data
  # One event, or one sequence in five, is kept for the preferences.
  c.data.split.preference = 0.34 if name == "radar_eu" else 0.2
  published = name in ARCHIVES
  c.method = ml_collections.ConfigDict(_policy(published))
  c.model = config_dict.create(
    name="diffcast",
    features=64 if published else 16,
    multipliers=(1, 2, 4, 8) if published else (1, 2, 4),
  )
  c.global_batch_size = 32 if published else 8
  c.optimizer.update(
    name="adamw", learning_rate=1e-4, b1=0.9, b2=0.95, weight_decay=0.01
  )
  c.num_steps = 500_000 if published else 600
  c.optimizer.schedule.update(
    name="cosine",  # Counted from the first step, the warm-up included.
    warmup=0.1 * c.num_steps,
    warmup_learning_rate=1e-5,
    final_learning_rate=1e-5,
  )
  if not published:
    c.optimizer.learning_rate = 1e-3
    c.optimizer.clip_norm = 1.0
    c.ema_decay = 0.99
  c.evaluation.update(
    batch_size=8,
    conventions=("physical", "categorical", "ensemble"),
    thresholds=_THRESHOLDS[name],
    baselines=("persistence",),
    validation_members=4,
    validation_stride=4 if name == "radar_eu" else 1,
    every_epochs=0.0,
    every_steps=0 if not published else 5000,
  )
  c.checkpoint.update(best_metric="ensemble/crps_fair", every_epochs=0.0)
  c.checkpoint.every_steps = 5000 if published else 300
  c.forecast.sampler.update(name="ddim", steps=20, spacing="leading")
  # The published bound; it is wide.
  c.forecast.sampler.clip_x0 = (-13.0, 13.0)
  c.forecast.clip_range = (0.0, None)
  c.forecast.members = 5
  c.prefer.update(name="far", scores=("far",), candidates=5)
  if not published:  # Held-out pairs, too; their accuracy is logged.
    c.prefer.splits = ("preference", "validation")
  return c


def _prefer(c, name: str) -> None:
  """A run that prefers: the base is its reference, and the pairs are the base's."""
  method = c.method.to_dict()
  c.method = ml_collections.ConfigDict(
    dict(
      name="preference",
      policy=method,
      beta=3000.0,
      alpha=0.5,
      weight="clean",
      anchor=0.0,
    )
  )
  published = name in ARCHIVES
  c.optimizer.update(learning_rate=1e-6 if published else 5e-5, clip_norm=0.0)
  c.optimizer.schedule.update(name="constant", warmup=0.0)
  c.ema_decay = 0.0
  c.evaluation.every_steps = c.checkpoint.every_steps = 100 if published else 30
  # What it may lose on the validation split, always with the same noise.
  c.evaluation.guards = ml_collections.ConfigDict(
    {"ensemble/crps_fair": _CRPS_GUARD[name], "ensemble/spread_skill": -0.25}
  )


def get_config(variant: str = "moving_rain,base") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/syncast.py has no variant {variant!r}; it is SET,STAGE, with SET of"
      f" {', '.join(SETS)} and STAGE of base, dpo_far, spo_csi (and base,csi for"
      " --mode=prefer)."
    )
  name, stage = variant.split(",", 1)
  c = _base(name)
  command = f"python -m stjax.main --config=configs/syncast.py:{name}"
  path = "" if name == "moving_rain" else " --config.data.path={config.data.path}"
  source = f"{_FOLDER}/{name}"
  if stage == "base":
    c.next_command = f"{command},base{path} --workdir={{workdir}} --mode=prefer"
    c.prefer.next_command = (
      f"{command},dpo_far{path} --workdir={{workdir}}_far"
      " --config.init_from={workdir} --config.frozen.reference.init_from={workdir}"
      " --config.data.pairs={workdir}/preferences/far"
    )
    return c
  if stage == "base,csi":
    c.prefer.update(name="csi", scores=("csi",))
    c.prefer.next_command = (
      f"{command},spo_csi{path} --workdir={{workdir}}_csi"
      " --config.init_from={workdir}_far --config.frozen.reference.init_from={workdir}"
      " --config.frozen.previous.init_from={workdir}_far"
      " --config.data.pairs={workdir}/preferences/csi"
    )
    return c
  _prefer(c, name)
  c.frozen = config_dict.create(reference=dict(init_from=source))
  if stage == "dpo_far":
    c.init_from = source
    c.data.pairs = f"{source}/preferences/far"
    c.num_steps = 1000 if name in ARCHIVES else 90
    c.evaluation.guards["categorical/csi"] = -0.05
    c.next_command = (
      f"{command},base,csi{path} --workdir={{config.init_from}} --mode=prefer"
    )
    return c
  c.init_from = f"{source}_far"
  c.frozen.previous = dict(init_from=f"{source}_far")
  c.data.pairs = f"{source}/preferences/csi"
  c.num_steps = 360 if name in ARCHIVES else 60
  c.evaluation.guards["categorical/far"] = 0.05
  return c
