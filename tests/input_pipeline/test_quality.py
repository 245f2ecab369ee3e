"""What looks wrong in the values of a variable."""

import numpy as np
import pytest
import xarray as xr
from absl import logging

import input_pipeline
from input_pipeline import errors, quality

RANDOM = np.random.default_rng(0)
N = 6000
RAIN = RANDOM.gamma(2, 2, N)
CELSIUS = 5 * RANDOM.standard_normal(N)
BYTES = RANDOM.integers(0, 256, N).astype(float)


def mixed(values, *codes, share=0.2):
  values = np.array(values, np.float32)
  for code in codes:
    values[RANDOM.random(values.size) < share] = code
  return values


def seen(values, parts=7):
  watch = quality.Watch(1)
  for part in np.array_split(np.asarray(values, np.float32), parts):
    watch.add(0, part)
  return watch.seen(0)


@pytest.mark.parametrize(
  ("values", "codes"),
  [
    (mixed(RAIN, -9999), [-9999]),
    (mixed(RAIN, -9999, share=0.001), [-9999]),
    (mixed(RAIN, 9999, -999, -9999), [9999, -999, -9999]),
    (mixed(RAIN, 1e20), [1e20]),
    (mixed(RAIN, 9.96921e36), [9.96921e36]),
    (mixed(RAIN, -3.4028235e38), [-3.4028235e38]),
    (mixed(RAIN, 0, -1), [-1]),
    (mixed(RAIN * 100 // 1, -32768), [-32768]),
    (mixed(CELSIUS + 280, 0), [0]),
    (mixed(CELSIUS, -99.9), [-99.9]),
    (mixed(CELSIUS, -1000), [-1000]),
    (mixed(1e5 + 100 * CELSIUS, 9999), [9999]),
    (mixed(BYTES // 2, 255), [255]),
    (mixed(RANDOM.uniform(-20000, 45000, N), -9999), [-9999]),
    (mixed(np.ones(N), -9999), [-9999]),
    # What is natural.
    (mixed(RAIN, 0, share=0.8), []),
    (np.round(RAIN), []),
    (mixed(CELSIUS, 0), []),
    (np.maximum(CELSIUS, -1.8), []),
    (np.clip(CELSIUS, 0, 1), []),
    (np.exp(CELSIUS), []),
    (CELSIUS + 1000, []),
    (BYTES, []),
    (BYTES % 2 * 255, []),
    (BYTES % 3 - 1, []),
    (np.clip(2 * BYTES, 0, 255), []),
    (np.where(BYTES < 80, 0, 5 + BYTES / 6), []),
    (np.full(N, 5), []),
  ],
)
def test_codes_are_told_from_data(values, codes):
  found = quality.suspects(seen(values))
  assert set(found) == {float(np.float32(c)) for c in codes}
  for code, count in found.items():
    assert count == (np.asarray(values, np.float32) == np.float32(code)).sum()


@pytest.mark.parametrize(
  ("attrs", "low", "high", "words"),
  [
    ({"standard_name": "air_temperature", "units": "K"}, -5, 25, "not allow"),
    ({"standard_name": "air_temperature", "units": "K"}, 220, 310, ""),
    ({"standard_name": "air_temperature", "units": "degC"}, 220, 310, "not allow"),
    ({"standard_name": "air_temperature", "units": "mm/h"}, 1, 2, "not belong"),
    ({"units": "degC"}, 250, 310, "look like kelvin"),
    ({"standard_name": "precipitation_flux", "units": "mm"}, 0, 20, "not belong"),
    ({"standard_name": "precipitation_flux", "units": "kg m-2 s-1"}, 0, 1e-3, ""),
    ({"standard_name": "precipitation_amount", "units": "mm/h"}, 0, 9, "not belong"),
    ({"standard_name": "surface_air_pressure", "units": "hPa"}, 9e4, 1e5, "not allow"),
    ({"standard_name": "surface_air_pressure", "units": "Pa"}, 5e4, 1e5, ""),
    ({"standard_name": "relative_humidity", "units": "%"}, 0, 0.9, "fractions"),
    ({"standard_name": "relative_humidity", "units": "1"}, 0, 99, "not allow"),
    ({"standard_name": "eastward_wind", "units": "m s**-1"}, -40, 50, ""),
    ({"standard_name": "eastward_wind", "units": "furlong"}, -40, 50, ""),
  ],
)
def test_units_are_compared_with_names_and_values(attrs, low, high, words):
  notes = quality.unit_notes("v", attrs, low, high)
  assert words in notes[0] if words else not notes


def config(path, fields, **changes):
  times = np.arange(len(fields)).astype("datetime64[h]").astype("datetime64[ns]")
  xr.Dataset({"v": (("time", "y", "x"), fields)}, {"time": times}).to_netcdf(
    path, engine="h5netcdf", encoding={"v": {"_FillValue": None}}
  )
  split = {"fractions": (0.5, 0.25, 0.25)}
  data = {"store": "xarray", "path": str(path), "variables": "v", "split": split}
  return data | {"history": 1, "horizon": 1, "missing": "mask"} | changes


def test_each_variable_gets_a_line_and_warnings_that_survive_a_resumed_run(
  tmp_path, monkeypatch
):
  said = []
  for kind in ("info", "warning"):
    monkeypatch.setattr(logging, kind, lambda text, *args: said.append(text % args))
  fields = np.random.default_rng(0).gamma(2, 2, (40, 4, 5)).astype(np.float32)
  fields[:, 0] = -9999
  data = config(tmp_path / "f.nc", fields)
  split = input_pipeline.build(data, "train", batch_size=1)
  line, warning = said
  assert line.startswith("v (no units): none missing, from -9999 to ")
  assert str(tmp_path / "f.nc") in warning and "25 %" in warning
  assert "--config.data.missing_value=-9999 " in warning
  input_pipeline.build(data, "test", batch_size=1, statistics=split.statistics)
  assert len(said) == 2  # Once for each statistics.
  kept = input_pipeline.Statistics.from_json(split.statistics.to_json())
  input_pipeline.build(data, "train", batch_size=1, statistics=kept)
  assert said[2:] == said[:2]
  said.clear()
  input_pipeline.build(data | {"missing_value": (-9999,)}, "train", batch_size=1)
  assert len(said) == 1 and "25 % missing, from 0." in said[0]


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_what_will_have_no_score_is_said_when_a_split_is_opened(tmp_path, cache):
  fields = np.random.default_rng(0).gamma(2, 2, (40, 4, 5)).astype(np.float32)
  fields[20:30] = np.nan
  fields[30:] = 0
  data = config(tmp_path / "f.nc", fields, cache=cache)
  notes = {
    name: input_pipeline.build(data, name, batch_size=1).review()
    for name in ("train", "validation", "test")
  }
  assert notes["train"] == []
  (validation,), (test,) = notes["validation"], notes["test"]
  assert "'v' has no observation in all 9 target frames of the validation" in validation
  assert "'v' has one value only, 0, in all 9 target frames of the test" in test
  split = input_pipeline.build(data | {"missing": "error"}, "validation", batch_size=1)
  with pytest.raises(errors.DataError, match="frame 21, variable 'v'"):
    split.review()
  # Enough is read to tell, even where the first frames tell nothing.
  fields[20:29] = np.nan
  fields[29] = 1
  data = config(tmp_path / "g.nc", fields, cache=cache)
  assert "no observation" not in str(
    input_pipeline.build(data, "validation", batch_size=1).review()
  )
