"""Every config file is complete, accepted, and says what its data need."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import pytest

import input_pipeline
from configs import sfp, simvp_boiling, syncast
from stjax import config as config_lib
from stjax import models
from stjax.models.translators import TRANSLATORS

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
SHARED = {"__init__", "base", "simvp"}
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in SHARED)


def variants(name):
  return getattr(importlib.import_module(f"configs.{name}"), "VARIANTS", [None])


def build_network(section, data, channels=None):
  options = models.complete(
    "model",
    section.name,
    config_lib.without(section, "name"),
    horizon=data.horizon,
    channels=channels,
    calendar=dict.fromkeys(data.calendar, 1),
  )
  return models.build(section.name, **options)


@pytest.mark.parametrize(
  ("name", "variant"), [(n, v) for n in NAMES for v in variants(n)]
)
def test_a_config_is_complete_and_its_keys_are_known(name, variant):
  module = importlib.import_module(f"configs.{name}")
  config = module.get_config(*([variant] if variant else []))
  config_lib.validate(config)
  data = config.data.to_dict()
  assert set(data) == set(input_pipeline.defaults(data["store"]))
  for section in (config.model, *(v.get("model") for v in config.frozen.values())):
    if section and section.name != "none":
      build_network(section, config.data)
  assert "Run:" in module.__doc__


@pytest.mark.parametrize("name", syncast.SETS)
def test_each_stage_of_syncast_names_a_next_one_that_finds_what_it_left(name):
  folders = {}
  for stage in ("base", "dpo_far", "base,csi"):
    config = syncast.get_config(f"{name},{stage}")
    config.data.update({"path": "FILE"} if name != "moving_rain" else {})
    folder = folders.get(stage, "W")
    if stage == "dpo_far":
      config.init_from = "W"
    commands = [config.next_command] * (stage != "base,csi")
    commands += [config.prefer.next_command] * stage.startswith("base")
    for command in commands:
      words = command.format(workdir=folder, config=config).split()
      flags = dict(word[2:].split("=", 1) for word in words[3:])
      following = flags["config"].split(":")[1]
      assert following in syncast.VARIANTS and following.startswith(name)
      folders[following.split(",", 1)[1]] = flags["workdir"]
      assert flags.get("config.data.path", "FILE") == "FILE"
      if following.endswith(("dpo_far", "spo_csi")):
        assert flags["config.data.pairs"] == f"W/preferences/{following[-3:]}"
        assert flags["config.frozen.reference.init_from"] == "W"
      else:
        assert flags["workdir"] == "W" and flags["mode"] == "prefer"
  assert folders == {
    "base": "W",
    "base,csi": "W",
    "dpo_far": "W_far",
    "spo_csi": "W_csi",
  }


@pytest.mark.parametrize("name", sfp.SETS)
def test_each_stage_of_sfp_names_the_next_one(name):
  for stage, following in zip(sfp.STAGES, sfp.STAGES[1:], strict=False):
    config = sfp.get_config(f"{name},{stage}")
    config.data.update({"path": "FILE"} if name != "navier_stokes" else {})
    words = config.next_command.format(workdir="W", config=config).split()
    flags = dict(word[2:].split("=", 1) for word in words[3:])
    assert flags["config"] == f"configs/sfp.py:{name},{following}"
    assert flags.get("config.data.path", "FILE") == "FILE"
    # Where the world model is, the agent does not know; it is the default folder.
    last = sfp.get_config(f"{name},self_training")
    if following == "self_training":
      assert flags["config.init_from"] == "W"
      given = flags["config.frozen.world.init_from"]
      assert given == last.frozen.world.init_from
    else:
      assert flags["workdir"] == last.init_from


@pytest.mark.parametrize("variant", simvp_boiling.VARIANTS)
def test_every_networks_forecast_fits_the_boiling_plate(variant):
  config = simvp_boiling.get_config(variant)
  network = build_network(config.model, config.data, channels=1)
  inputs = jnp.zeros((1, config.data.history, 64, 64, 1))
  forecast, variables = jax.eval_shape(
    network.init_with_output, jax.random.key(0), inputs
  )
  assert forecast.shape == (1, config.data.horizon, 64, 64, 1)
  assert variables["params"]


def test_every_translator_has_a_variant():
  assert set(simvp_boiling.TRANSLATORS) == set(TRANSLATORS) - {"gsta"}
  for name in simvp_boiling.TRANSLATORS:
    assert simvp_boiling.get_config(name).model.translator == name


def test_an_unknown_variant_lists_the_known_ones():
  module = importlib.import_module("configs.simvp_boiling")
  with pytest.raises(ValueError, match="full"):
    module.get_config("fulll")


def test_configs_hold_plain_values():
  def check(value):
    if isinstance(value, dict):
      for inner in value.values():
        check(inner)
    elif isinstance(value, list | tuple):
      for inner in value:
        check(inner)
    else:
      assert value is None or isinstance(value, bool | int | float | str)

  for name in NAMES:
    config = importlib.import_module(f"configs.{name}").get_config()
    assert isinstance(config, ml_collections.ConfigDict)
    check(config.to_dict())
