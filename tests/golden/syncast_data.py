"""SynCast's three data sets, from files in their formats to batches."""

import pathlib
import tempfile

import numpy as np
import PIL.Image

import input_pipeline
from golden import registry
from golden.case import Case, assert_close


@registry.runner("syncast", "data_pipeline")
def data_pipeline(case: Case) -> None:
  """Compares one window of each data set with what the original loader gives."""
  arrays, golden = case.group("input"), case.group("output")
  sizes = case.meta["config"]
  with tempfile.TemporaryDirectory() as folder:
    for name, write in (("sevir", _sevir), ("meteonet", _meteonet), ("hko", _hko7)):
      path = pathlib.Path(folder, name)
      path.mkdir()
      size = (sizes[f"{name}_resize"][1],) * 2
      config = write(path, arrays) | {"normalise": "fixed", "cache": "none"}
      config["resample"] = config.get("resample", {}) | {"size": size}
      split = input_pipeline.build(config, "train", batch_size=1, train=False)
      (batch,) = split.batches
      for part in ("inputs", "targets"):
        found = np.moveaxis(batch[part][0], -1, 1)  # [T, 1, H, W].
        assert_close(f"{name}_{part}", found, golden[f"{name}_{part}"], 1e-6)


def _sevir(path, arrays):
  np.save(
    path / "vil-2017-SEVIR_VIL_TEST_2017_0501_0831.h5-838.npy", arrays["sevir_raw"]
  )
  (path / "train.txt").write_text("vil-2017-SEVIR_VIL_TEST_2017_0501_0831.h5-838.npy")
  return {
    "store": "sevir",
    "path": str(path),
    "train_list": str(path / "train.txt"),
    "keep_255": True,
    "history": 6,
    "horizon": 18,
    "scale": 255,
    "resample": {"first": 1, "every": 2},
    "split": {"by": "sample"},
  }


def _meteonet(path, arrays):
  np.save(path / "0.npy", arrays["meteonet_raw"])
  return {
    "store": "meteonet",
    "path": str(path),
    "history": 6,
    "horizon": 18,
    "scale": 70,
    "split": {"by": "sample"},
  }


def _hko7(path, arrays):
  folder = path / "radarPNG/2009/03/28"
  folder.mkdir(parents=True)
  names = [f"RAD090328{12 * n // 60:02}{12 * n % 60:02}00.png" for n in range(20)]
  for name, pixels in zip(names, arrays["hko_raw"], strict=True):
    PIL.Image.fromarray(pixels).save(folder / name)
  np.savez(path / "mask_dat.npz", exclude_mask=1 - arrays["hko_keep_mask"][0])
  (path / "train.txt").write_text("\n".join(names))
  return {
    "store": "hko7",
    "path": str(path),
    "train_list": str(path / "train.txt"),
    "block": 20,
    "exclude_mask": str(path / "mask_dat.npz"),
    "excluded": "zero",
    "history": 5,
    "horizon": 15,
    "scale": 255,
    "resample": {"rounding": "uint8"},
    "split": {"by": "sample"},
  }
