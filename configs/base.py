"""Every key that stjax reads, with its default and meaning; other configs start here.

The keys of `model` and `method` are those of the network and the method that are
named there; the keys of `data` that all stores share are in
input_pipeline/options.py.
"""

import ml_collections
from ml_collections import config_dict

from input_pipeline import options


def get_config() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.seed = 0  # The seed of initialisation, shuffling, dropout and sampling.
  # "float32" or "bfloat16" for what is computed. Parameters are always float32.
  c.precision = "float32"
  # A work directory or a file of torch weights whose parameters the run starts from.
  c.init_from = ""
  # Trained methods that the method reads and never trains, by name, such as
  # {"mean": {"init_from": a work directory}}; see docs/diffusion.md.
  c.frozen = ml_collections.ConfigDict()

  c.num_epochs = 1.0  # Passes over the training split.
  c.num_steps = 0  # A positive number of optimiser steps replaces num_epochs.
  # Training ends at the latest after so many points (examples x frames x H x W), which
  # bounds its time on a grid of any size; 0 sets no bound.
  c.max_points = 0.0
  c.global_batch_size = 8  # Over all hosts; a multiple of mesh.data * mesh.fsdp.
  c.accumulation_steps = 1  # Microbatches into which each batch is cut.
  # Decay of the averaged parameters, with which forecasts are made; 0 averages none.
  c.ema_decay = 0.0

  c.method = ml_collections.ConfigDict(
    {
      "name": "regression",
      # Odd grids are padded so that a network that halves them can take them.
      "pad_to_multiple": 1,
    }
  )
  c.model = ml_collections.ConfigDict({"name": "simvp"})
  c.data = ml_collections.ConfigDict(options.common())

  c.optimizer = config_dict.create(
    name="adam",  # "adam", "adamw" or "sgd".
    learning_rate=1e-3,  # The highest rate of the schedule.
    # It is part of the gradient for adam and sgd, and decoupled from it for adamw.
    weight_decay=0.0,
    clip_norm=0.0,  # Gradients are scaled down to this global norm; 0 clips none.
    b1=0.9,  # Decay of the first moment of adam and adamw.
    b2=0.999,  # Decay of the second moment of adam and adamw.
    eps=1e-8,  # What adam and adamw add to the root of the second moment.
    momentum=0.0,  # Momentum of sgd.
    schedule=config_dict.create(
      name="constant",  # Or another name in stjax/training/optim.py.
      per="step",  # Or "epoch" for rates that are constant within each epoch.
      warmup=0.0,  # Steps (or epochs) of linear warm-up.
      warmup_learning_rate=0.0,  # The rate with which the warm-up begins.
      final_learning_rate=0.0,  # The last rate of cosine, exponential and tanh.
      decay_every=0.0,  # Steps (or epochs) between two decays of step.
      decay_rate=0.1,  # Factor of each decay of step and multistep.
      milestones=(),  # Steps (or epochs) at which multistep decays.
      power=1.0,  # The exponent k in t^k / T^k of cosine.
      hold=0.0,  # Share of the run before exponential falls.
      pct_start=0.3,  # Share of the run in which one_cycle rises.
      div_factor=25.0,  # The highest rate of one_cycle over its first one.
      final_div_factor=1e4,  # The first rate of one_cycle over its last one.
      cycle_momentum=True,  # Whether one_cycle takes b1 from .95 to .85 and back.
    ),
  )

  # Devices along each axis of the mesh. One of them may be -1 for all that are left.
  c.mesh = config_dict.create(
    data=-1,  # They split the batch.
    fsdp=1,  # They split the batch, and parameters, moments and averages as well.
    space=1,  # They split the rows of the grid.
  )

  c.checkpoint = config_dict.create(
    every_epochs=1.0,  # Epochs between two checkpoints.
    every_steps=0,  # A positive number of steps replaces every_epochs.
    keep_latest=2,  # How many of the newest checkpoints are kept.
    keep_best=1,  # How many of the best checkpoints are kept.
    best_metric="loss",  # The score of the validation split that says which is best.
    best_mode="min",  # "min" or "max": whether a low or a high score is better.
  )
  c.evaluation = config_dict.create(
    every_epochs=1.0,  # Epochs between two validations while training.
    every_steps=0,  # A positive number of steps replaces every_epochs.
    batch_size=8,  # Windows that are scored at the same time.
    split="test",  # The split that is scored at the end and by --mode=evaluate.
    history=0,  # Frames of the history when scoring; 0 stands for those trained with.
    # Frames that are scored; 0 stands for those trained with. For more of them the
    # forecast is fed back.
    horizon=0,
    checkpoint="best",  # Or "latest": the checkpoint that is scored.
    conventions=("physical",),  # Named sets of scores; see docs/metrics.md.
    data_range=0.0,  # The range for PSNR and SSIM; 0 takes that of the training data.
    # "latitude" weighs rows by the cosine of the latitude, "cells" by the area between
    # latitudes, "none" not at all; "auto" is "latitude" where rows are latitudes.
    area_weights="none",
    # Thresholds in physical units, of the conventions "categorical", "ensemble" and
    # "syncast".
    thresholds=(),
    scales=(),  # Sides of the blocks of the convention "categorical", in points.
    velocities=(),  # Names of the two velocity components, of the convention "tke".
    heatwave=config_dict.create(  # Options of the convention "heatwave".
      quantile=0.9,  # The threshold, as a quantile of a calendar cell in training.
      min_duration=1,  # Frames in a row that make a heatwave.
    ),
    syncast=config_dict.create(  # Options of the convention "syncast".
      dataset="sevir",  # Whose thresholds and quirks: "sevir", "meteonet" or "hko7".
      full_scale=0.0,  # The physical value that stands for 1; 0 takes the data set's.
    ),
    # Forecasts that are scored besides: "persistence", "training_mean" and, with
    # data.calendar, "climatology", "anomaly_persistence" and
    # "damped_anomaly_persistence".
    baselines=("persistence", "training_mean"),
    figures=4,  # Examples that are drawn as pictures and animations.
    points=(),  # Places (row, column) of fan charts; () lets stjax choose some.
    window_stride=1,  # Every n-th window of the split is scored.
    # Fewer windows are scored, also while training, where they have more points
    # (windows x frames x H x W) than this; 0 sets no bound.
    max_points=0.0,
    validation_stride=1,  # Every n-th window is scored while training.
    # How far a score of the validation split may change from what it was before the
    # first step, such as {"categorical/csi": -0.02}: below 0 it may fall so far, above
    # 0 it may rise so far. Beyond that the run stops.
    guards=ml_collections.ConfigDict(),
    validation_members=1,  # Ensemble members of a forecast that is scored in training.
  )
  c.forecast = config_dict.create(
    split="test",  # The split that gives the initial conditions.
    checkpoint="best",  # Or "latest": the checkpoint that makes the forecast.
    history=0,  # Frames before each forecast; 0 stands for those trained with.
    # Lead times; 0 stands for those trained with. More of them are fed back.
    horizon=0,
    # Whether forecasts also begin where the data end before the last lead time.
    past_data_end=False,
    members=1,  # Members of the ensemble, also in the evaluation.
    member_chunk=0,  # Members made at the same time; 0 stands for as memory allows.
    batch_size=8,  # Initial conditions that are forecast at the same time.
    # Lead times that are made and written together, and from which an interrupted
    # forecast goes on; 0 stands for as many as fit into 256 MiB.
    lead_chunk=0,
    # The forecast stops at so many standard deviations from the training mean; with
    # 0 it stops only where it is not finite.
    abort_above_std=1000.0,
    # The lowest and the highest possible value; others are clipped to them. None
    # leaves one end open, () both. "auto" is (0, None) for data.transform="log1p"
    # whose training values are never below 0, else ().
    clip_range=("auto",),
    format="zarr",  # Or "netcdf": the store is forecast/SPLIT.zarr or SPLIT.nc.
    layout="stjax",  # The layout of the store; or "weatherbench2": see docs/metrics.md.
    sampler=config_dict.create(  # How methods that sample make a member.
      name="ddpm",  # Or "ddim", "heun", "dpm++"; see docs/diffusion.md.
      steps=0,  # Steps for each member; 0 stands for all of the noise schedule.
      eta=0.0,  # Share of fresh noise in ddim.
      spacing="ends",  # Or "leading", multiples from 0: which steps ddpm, ddim take.
      clip_x0=(),  # (Lowest, highest) value, normalised, of what a step predicts.
      guidance=1.0,  # Scale of classifier-free guidance; 1 is without it.
      temperature=1.0,  # Factor on the noise, and so on the spread of the members.
      # "spectrum" or "agreement": how method self_training chooses among the futures
      # of its world model; with "" it makes its own forecast. See docs/sfp.md.
      reward="",
    ),
  )
  c.prefer = config_dict.create(  # --mode=prefer; see docs/syncast.md.
    name="pairs",  # The pairs are left in WORKDIR/preferences/NAME.
    # The splits whose windows get pairs: first the one that is trained on. Pairs of
    # "validation" show while training how many of them the policy gets right.
    splits=("preference",),
    checkpoint="best",  # Or "latest": the checkpoint that draws the candidates.
    window_stride=1,  # Every n-th window gets candidates.
    batch_size=8,  # Windows whose candidates are drawn at the same time.
    candidates=5,  # Members that are drawn for each window.
    ensemble_mean=False,  # Whether the (normalised) mean is one candidate more.
    # By what the candidates are scored: "far", "csi", "pod", "hss", "pooled_csi",
    # "fss", "spectral_error", "crps_share", "mae", "rmse".
    scores=("far",),
    weights=(),  # A positive factor for each score; () gives all the same.
    thresholds=(),  # Of the events, in physical units; () takes evaluation.thresholds.
    scale=4,  # Points along the side of a block, of pooled_csi and fss.
    pooling="average",  # Or "max", of pooled_csi.
    band="all",  # Or "low", "mid", "high": the waves of spectral_error.
    # "sample" pairs the best and the worst sequence, "frame" does so for each lead
    # time, "both" picks what is good, or bad, by two scores.
    pairing="sample",
    top=2,  # How many candidates count as good, and as bad, by each score of "both".
    released=False,  # Whether the rules are those of SynCast's program.
    round=1,  # Another round draws other candidates.
    # How strongly candidates are drawn towards the observation; 0 is not at all.
    guidance_strength=0.0,
    next_command="",  # What is printed in the end as the command that follows.
  )
  c.next_command = ""  # What is printed after training as the command that follows.
  c.log = config_dict.create(
    every_steps=10,  # Steps between two lines of the log.
    histograms_every_steps=0,  # Steps between histograms of parameters; 0 has none.
  )
  return c
