"""Every key that stjax reads, with its default; other configs start here."""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.seed = 0  # Initialisation, shuffling, dropout and sampling.
  c.precision = "float32"  # Or "bfloat16": compute only, never parameters.
  c.init_from = ""  # A work directory to start from: its best parameters.
  # What the method reads and never trains, by name: {"mean": {"init_from":
  # work directory or torch file, "model": as below}}.
  c.frozen = ml_collections.ConfigDict()

  c.num_epochs = 1.0  # Passes over the training split.
  c.num_steps = 0  # If positive: optimiser steps, instead of num_epochs.
  c.global_batch_size = 8  # Over all hosts; divisible by data * fsdp.
  c.accumulation_steps = 1  # Each batch is cut into this many parts.
  c.ema_decay = 0.0  # 0: off; else evaluation uses the averaged parameters.

  c.method = ml_collections.ConfigDict({"name": "regression"})
  c.model = ml_collections.ConfigDict({"name": "simvp"})
  # The keys every store reads; a config adds those of its own store.
  c.data = config_dict.create(
    store="",
    history=10,  # Frames given.
    horizon=10,  # Frames to forecast.
    stride=1,  # Frames between the starts of neighbouring windows.
    normalise="standard",  # Or "range", "none".
    transform="identity",  # Or "log1p", before normalising.
    missing="error",  # Or "mask": missing points count for nothing.
    augment=(),  # flip_h, flip_w, transpose, roll_h, roll_w: training only.
    calendar=(),  # slot_of_day, day_of_week, month, hour_of_day, day_of_year.
    slots_per_day=0,  # 0: by the time step; else counted by frame number.
    # Fields that are known in advance and never forecast, such as winds over
    # an ocean; "": in data.path.
    forcings=config_dict.create(variables=(), path=""),
    # Fields without a time axis, such as a land mask; "": in data.path.
    static=config_dict.create(variables=(), path=""),
    statistics=config_dict.create(
      frames="all",  # Or "history": only those of each training window.
      ddof=0,  # Deviations divide by the number of values less this.
    ),
    split=config_dict.create(
      by="auto",  # Or "time", "sample", "event", "window", "ranges".
      fractions=(0.7, 0.15, 0.15),  # Train, validation, test.
      seed=0,
      boundaries=(),  # First dates of validation and test, by time.
      ranges=config_dict.create(),  # {split: ((sample, first, stop),)}.
    ),
    cache="auto",  # Or "memory", "disk", "none".
    memory_limit_gib=2.0,  # auto keeps less than this in memory.
    loader=config_dict.create(threads=1, prefetch=4, workers=0),
  )

  c.optimizer = config_dict.create(
    name="adam",  # adam, adamw, sgd.
    learning_rate=1e-3,  # The schedule's peak.
    weight_decay=0.0,  # In the gradient for adam and sgd, decoupled: adamw.
    clip_norm=0.0,  # 0: off; else gradients are scaled to this global norm.
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    momentum=0.0,  # sgd only.
    schedule=config_dict.create(
      name="constant",  # Or the names in stjax/optim.py.
      per="step",  # Or "epoch": constant within each epoch.
      warmup=0.0,  # Steps (or epochs) of linear warm-up.
      warmup_learning_rate=0.0,
      final_learning_rate=0.0,  # cosine, exponential, tanh end here.
      decay_every=0.0,  # step: every so many steps (or epochs).
      decay_rate=0.1,  # step and multistep.
      milestones=(),  # multistep.
      power=1.0,  # cosine: k of t^k / T^k.
      hold=0.0,  # exponential: share of the run before it falls.
      pct_start=0.3,  # one_cycle: share of the rise.
      div_factor=25.0,  # one_cycle: peak / first rate.
      final_div_factor=1e4,  # one_cycle: first / last rate.
      cycle_momentum=True,  # one_cycle: b1 from .95 to .85 and back.
    ),
  )

  c.mesh = config_dict.create(data=-1, fsdp=1, space=1)  # -1: the rest.

  c.checkpoint = config_dict.create(
    every_epochs=1.0,
    every_steps=0,  # If positive: instead of every_epochs.
    keep_latest=2,
    keep_best=1,
    best_metric="loss",  # A score of the validation split.
    best_mode="min",
  )
  c.evaluation = config_dict.create(
    every_epochs=1.0,  # Of the validation split, while training.
    every_steps=0,  # If positive: instead of every_epochs.
    batch_size=8,
    split="test",  # Scored at the end, and by --mode=evaluate.
    history=0,  # Frames given when scoring; 0: as trained.
    horizon=0,  # Frames scored; 0: as trained. More are fed back.
    checkpoint="best",  # Or "latest".
    conventions=("physical",),  # Named sets of scores; see docs/metrics.md.
    data_range=0.0,  # Of PSNR and SSIM; 0: as observed in training.
    # Or "latitude": cosine of the latitude; "cells": area between latitudes.
    area_weights="none",
    thresholds=(),  # Of "ensemble"'s event scores, physical units.
    heatwave=config_dict.create(  # Of the convention of that name.
      quantile=0.9,  # Of the training values of a calendar cell.
      min_duration=1,  # Frames in a row.
    ),
    # And "climatology", "anomaly_persistence", "damped_anomaly_persistence",
    # which need data.calendar.
    baselines=("persistence", "training_mean"),
    figures=4,  # Examples shown as pictures and animations.
    points=(),  # (row, column) of fan charts; (): some are chosen.
    window_stride=1,  # Every so many windows of the split are scored.
    validation_stride=1,  # The same while training,
    validation_members=1,  # with so many ensemble members.
  )
  c.forecast = config_dict.create(
    split="test",  # Where the initial conditions are taken from.
    checkpoint="best",
    history=0,  # Frames before each forecast; 0: as trained.
    horizon=0,  # Lead times; 0: as trained. More are fed back.
    past_data_end=False,  # Also from where the data end before the last lead time.
    members=1,  # Of the ensemble; evaluation draws as many.
    member_chunk=0,  # Members made at the same time; 0: as memory allows.
    batch_size=8,
    # Lead times made, written and kept to go on from together; 0: as many
    # as 256 MiB hold.
    lead_chunk=0,
    # Standard deviations from the training mean at which a forecast stops;
    # 0: only where it is not finite.
    abort_above_std=1000.0,
    # (lowest, highest) possible value, None for no end: others are clipped.
    clip_range=(),
    layout="stjax",  # Of the store; or "weatherbench2": see docs/metrics.md.
    sampler=config_dict.create(  # Of methods that sample.
      name="ddpm",  # Or "ddim", "heun", "dpm++"; see docs/diffusion.md.
      steps=0,  # Steps per member; 0: those of the noise schedule.
      eta=0.0,  # ddim: share of fresh noise.
      guidance=1.0,  # Above 1: classifier-free guidance.
      temperature=1.0,  # Factor on the noise drawn: members' spread.
    ),
  )
  c.log = config_dict.create(
    every_steps=10,
    histograms_every_steps=0,  # 0: off; else histograms of parameters.
  )
  return c
