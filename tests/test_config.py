import json

import pytest
from absl import flags
from ml_collections import config_flags
from small_runs import tiny_config

from stjax import config as config_lib
from stjax import errors
from stjax.run import cli


def test_a_complete_config_is_accepted():
  config_lib.validate(tiny_config())


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"precision": "float23"}, ["float23", "float32"]),
    ({"global_batch_size": 0}, ["global_batch_size=0"]),
    ({"accumulation_steps": 3}, ["accumulation_steps=3", "8"]),
    ({"ema_decay": 1.0}, ["ema_decay"]),
    ({"num_epochs": 0.0}, ["num_epochs", "num_steps"]),
    ({"data__history": 0}, ["data.history=0"]),
    ({"checkpoint__best_mode": "lowest"}, ["best_mode", "min"]),
  ],
)
def test_impossible_values_are_refused_by_key(changes, words):
  with pytest.raises(errors.ConfigError) as error:
    config_lib.validate(tiny_config(**changes))
  for word in words:
    assert word in str(error.value)


def test_a_missing_section_is_named():
  config = tiny_config()
  del config["mesh"]
  with pytest.raises(errors.ConfigError, match="'mesh'"):
    config_lib.validate(config)


@pytest.fixture
def trained(tmp_path):
  """A work directory with a checkpoint."""
  (tmp_path / "checkpoints" / "1").mkdir(parents=True)
  return tmp_path


def test_a_work_directory_without_a_checkpoint_takes_another_config(tmp_path):
  config_lib.claim_workdir(tiny_config(), tmp_path)
  (tmp_path / "statistics.json").write_text("of other data")
  (tmp_path / "frozen" / "mean").mkdir(parents=True)
  (tmp_path / "logs").mkdir()
  (tmp_path / "logs" / "metrics.jsonl").write_text("{}")
  # What a crash leaves of the first checkpoint.
  (tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp").mkdir(parents=True)
  changed = tiny_config(optimizer__learning_rate=0.5)
  config_lib.claim_workdir(tiny_config(), tmp_path)
  assert (tmp_path / "statistics.json").exists()
  config_lib.claim_workdir(changed, tmp_path)
  saved = json.loads((tmp_path / "config.json").read_text())
  assert saved["optimizer"]["learning_rate"] == 0.5
  assert not (tmp_path / "statistics.json").exists()
  assert not (tmp_path / "frozen").exists()
  assert (tmp_path / "logs.1" / "metrics.jsonl").exists()


def test_a_work_directory_keeps_to_one_config(trained):
  config_lib.claim_workdir(tiny_config(), trained)
  config_lib.claim_workdir(tiny_config(), trained)
  with pytest.raises(errors.ConfigError) as error:
    config_lib.claim_workdir(tiny_config(optimizer__learning_rate=0.5), trained)
  message = str(error.value)
  assert "optimizer.learning_rate: 0.001 in the work directory, 0.5" in message
  assert "--workdir" in message


def no_such_key(argv):
  raise KeyError("Key 'x' does not exist")


@pytest.mark.parametrize(("old", "new"), config_lib.RENAMED.items())
def test_an_old_key_is_refused_by_its_new_name(old, new, monkeypatch, capsys):
  config = tiny_config()
  section, key = old.split(".")
  config[section][key] = 1
  with pytest.raises(errors.ConfigError, match=f"{old} is now called {new}"):
    config_lib.validate(config)
  monkeypatch.setattr(cli.flags, "FLAGS", no_such_key)
  with pytest.raises(SystemExit):
    cli._parse(["main", f"--config.{old}=1"])
  assert f"--config.{new}" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("mean", "words"),
  [("network", "leave"), ("only", "mean_only=True"), ("none", "name='diffusion'")],
)
def test_the_old_choice_of_a_mean_is_refused_or_migrated(
  mean, words, monkeypatch, capsys
):
  config = tiny_config()
  method = {"name": "residual_diffusion", "mean": mean, "scale": "none", "num_steps": 5}
  config.method = method
  with pytest.raises(errors.ConfigError, match=f"method.mean='{mean}'.*{words}"):
    config_lib.validate(config)
  monkeypatch.setattr(cli.flags, "FLAGS", no_such_key)
  with pytest.raises(SystemExit):
    cli._parse(["main", f"--config.method.mean={mean}"])
  assert words in capsys.readouterr().err
  found = config_lib.migrate(config)["method"]
  if mean == "none":
    assert found == {"name": "diffusion", "num_steps": 5}
  else:
    assert found["mean_only"] == (mean == "only") and "mean" not in found


def test_an_old_baseline_is_refused_by_its_new_name():
  config = tiny_config(evaluation__baselines=("lead_mean",))
  with pytest.raises(errors.ConfigError, match="now called 'training_mean'"):
    config_lib.validate(config)


def test_a_work_directory_with_old_names_and_typed_horizons_is_still_its_own(trained):
  config = tiny_config()
  config.method.update(predict_tendency=True, pad_to_multiple=4)
  config_lib.claim_workdir(config, trained)
  path = trained / "config.json"
  old = json.loads(path.read_text())
  old["method"] = {"name": "regression", "increments": True, "pad_to": 4}
  old["model"] |= {"out_channels": 1, "horizon": 3}
  old["evaluation"]["stride"] = old["evaluation"].pop("window_stride")
  old["evaluation"]["baselines"] = ["persistence", "lead_mean"]
  path.write_text(json.dumps(old))
  config_lib.claim_workdir(config, trained)
  found = config_lib.migrate(old)
  assert found["evaluation"]["baselines"] == ["persistence", "training_mean"]
  assert found["evaluation"]["window_stride"] == 1
  old["method"]["increments"] = False
  path.write_text(json.dumps(old))
  with pytest.raises(errors.ConfigError, match="method.predict_tendency: False"):
    config_lib.claim_workdir(config, trained)


def test_what_does_not_change_the_training_may_change(tmp_path):
  config_lib.claim_workdir(tiny_config(), tmp_path)
  config_lib.claim_workdir(
    tiny_config(mesh__data=1, forecast__members=3, evaluation__split="validation"),
    tmp_path,
  )
  saved = json.loads((tmp_path / "config.json").read_text())
  assert saved["forecast"]["members"] == 3


def test_data_may_move_but_not_be_others(trained):
  def of(path):
    config = tiny_config()
    config.data.path = path
    return config

  config_lib.claim_workdir(of("/old/radar.nc"), trained)
  config_lib.claim_workdir(of("/new/radar.nc"), trained)
  with pytest.raises(errors.ConfigError, match="data.path"):
    config_lib.claim_workdir(of("/new/other.nc"), trained)


def test_a_damaged_config_file_is_named(tmp_path):
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(errors.ConfigError, match="config.json"):
    config_lib.claim_workdir(tiny_config(), tmp_path)


def test_near_names_come_first():
  assert "'adam'" in errors.near("adma", ["adam", "sgd"])
  with pytest.raises(errors.ConfigError, match="did you mean 'adam'"):
    errors.pick("optimizer.name", "adma", {"adam": 1, "sgd": 2})


@pytest.mark.parametrize(
  ("section", "key"),
  [
    ("evaluation", "figurs"),
    ("optimizer", "clip_nrm"),
    ("optimizer.schedule", "warmpu"),
    ("log", "every_step"),
  ],
)
def test_a_misspelt_key_in_a_config_file_is_refused(section, key):
  config = tiny_config()
  inner = config
  for part in section.split("."):
    inner = inner[part]
  inner[key] = 1
  with pytest.raises(errors.ConfigError, match=f"{section}.{key}"):
    config_lib.validate(config)


@pytest.mark.parametrize(
  "changes",
  [
    {"evaluation__split": "tset"},
    {"forecast__checkpoint": "newest"},
    {"log__every_steps": -1},
    {"evaluation__horizon": 2},
    {"checkpoint__keep_latest": 0},
    {"optimizer__learning_rate": float("nan")},
    {"forecast__clip_range": (0.0, float("inf"))},
    {"forecast__clip_range": (None, None)},
    {"forecast__clip_range": (1.0,)},
  ],
)
def test_values_are_checked_before_anything_is_made(changes):
  [(key, _)] = changes.items()
  with pytest.raises(errors.ConfigError, match=key.replace("__", ".")):
    config_lib.validate(tiny_config(**changes))


def test_a_work_directory_from_before_a_key_was_there_is_still_its_own(trained):
  config_lib.claim_workdir(tiny_config(), trained)
  path = trained / "config.json"
  saved = json.loads(path.read_text())
  for key in ("calendar", "slots_per_day", "statistics", "forcings", "static"):
    del saved["data"][key]
  del saved["data"]["split"]["ranges"], saved["max_points"]
  path.write_text(json.dumps(saved))
  config_lib.claim_workdir(tiny_config(), trained)
  path.write_text(json.dumps(saved))
  changed = tiny_config()
  changed.data.split.ranges = {"train": (("a", 0, None),)}
  changed.data.slots_per_day = 2
  with pytest.raises(errors.ConfigError) as error:
    config_lib.claim_workdir(changed, trained)
  assert "data.slots_per_day: 0 in the work directory, 2" in str(error.value)
  assert "data.split.ranges.train" in str(error.value)


def test_several_files_may_move_but_not_be_others(trained):
  def of(path):
    config = tiny_config()
    config.data.path = path
    return config

  config_lib.claim_workdir(of("/old/a.npy, /old/b.npy"), trained)
  config_lib.claim_workdir(of(("/new/a.npy", "/else/b.npy")), trained)
  with pytest.raises(errors.ConfigError, match="data.path"):
    config_lib.claim_workdir(of("/new/b.npy,/new/a.npy"), trained)


def test_an_open_end_of_the_valid_range_is_json(tmp_path):
  config_lib.validate(tiny_config(forecast__clip_range=(None, 1.0)))
  config = tiny_config(forecast__clip_range=(0.0, None))
  config_lib.validate(config)
  config_lib.claim_workdir(config, tmp_path)
  saved = json.loads((tmp_path / "config.json").read_text())
  assert saved["forecast"]["clip_range"] == [0.0, None]


@pytest.mark.parametrize(
  ("text", "values"),
  [
    ("t2m,u10", ("t2m", "u10")),
    ("z@500, u", ("z@500", "u")),
    ("32,32", (32, 32)),
    (".7,.2,.1", (0.7, 0.2, 0.1)),
    ("-10.,30.", (-10.0, 30.0)),
    ("0,None", (0, None)),
    ("2019-01-01,2019-06-01", ("2019-01-01", "2019-06-01")),
    ("(3,0),(5,0)", ((3, 0), (5, 0))),
    ("('csi','far')", ("csi", "far")),
    ("(t2m,u10)", ("t2m", "u10")),
    ("'a,b',c", ("a,b", "c")),
    ("001,002", ("001", "002")),
    ("rain", ("rain",)),
    ("", ()),
    ("()", ()),
  ],
)
def test_a_list_is_typed_with_commas(text, values):
  assert cli.as_list(text) == values


def test_every_list_and_any_coordinate_may_be_typed(monkeypatch):
  typed = [
    "x",
    "--config=configs/simvp_xarray.py",
    "--config.data.variables=t2m,u10",
    "--config.data.split.fractions=.7,.2,.1",
    "--config.data.resample.size=32,32",
    "--config.data.forcings.variables=wind,sun",
    "--config.evaluation.baselines=persistence",
    "--config.data.augment=flip_h",
    "--config.data.augment=flip_w",
    "--config.data.select.lat=40.,50.",
    '--config.data.select["pressure-level"]=0,10',
  ]
  monkeypatch.setattr("sys.argv", typed)
  held = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=held)
  held["config"].parser = cli._WithNamedKeys(held["config"].parser)
  held(typed)
  config = held.config
  assert config.data.variables == ("t2m", "u10")
  assert config.data.split.fractions == (0.7, 0.2, 0.1)
  assert config.data.resample.size == (32, 32)
  assert config.data.forcings.variables == ("wind", "sun")
  assert config.evaluation.baselines == ("persistence",)
  assert config.data.augment == ("flip_h", "flip_w")
  assert config.data.select.to_dict() == {
    "lat": (40.0, 50.0),
    "pressure-level": (0, 10),
  }
