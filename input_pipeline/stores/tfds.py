"""Store over sets prepared by tensorflow-datasets, without TensorFlow."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base
from input_pipeline.tfds import prepare

_INFO = "dataset_info.json"


class TfdsStore(base.Store):
  """Store over a prepared set: config `data.store = "tfds"`.

  Every example is one sequence. The splits of the set label the sequences
  when there are several; a set of one split is cut by data.split. There is no
  time axis: lead times count frames. The set must be prepared as ArrayRecord
  (`download_and_prepare(file_format="array_record")`).

  Args:
    builder: name of the set. One of our own builders ("boiling") is prepared
      when it is not there yet.
    path: the data_dir of tensorflow-datasets, or the folder of one prepared
      set and version. "" is a folder in the cache, for our own builders.
    version: the version wanted; "" for the only or current one.
    builder_options: options of one of our own builders, e.g.
      {"num_samples": 20}.
    feature: the feature with the frames, [T, H, W] or [T, H, W, C].
    id_feature: the text feature with the names of the examples, if the set
      has it.
    variables: names of the channels; () takes those that the set's metadata
      name, else "channel_0", "channel_1", ...
    units: units of the channels; () as variables.
    cache_dir: where a set is prepared if path is "".

  Raises:
    DataError: if the set, the version or a feature is not there, or is of a
      kind that cannot be read.
  """

  def __init__(
    self,
    builder: str = "boiling",
    path: str = "",
    version: str = "",
    builder_options: Mapping[str, Any] | None = None,
    feature: str = "frames",
    id_feature: str = "sample_id",
    variables: str | Sequence[str] = (),
    units: str | Sequence[str] = (),
    cache_dir: str | None = None,
  ):
    self._directory = _directory(
      builder, path, version, builder_options or {}, cache_dir
    )
    self._feature = feature
    self._sources = None
    info = tfds.builder_from_directory(self._directory).info
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
      raise errors.DataError(
        f"{self._directory} is prepared as {info.file_format.value}, which "
        "cannot be read without TensorFlow. Prepare it with "
        'file_format="array_record", or change data.path.'
      )
    self._shape = self._frame_shape(info)
    self.variables = base.channels(
      self._directory,
      self._shape[3],
      variables,
      units,
      (info.metadata or {}).get("variables"),
    )
    # Sequence -> (split, place in the split), in the order of the splits.
    self._places = [
      (split, place)
      for split, details in info.splits.items()
      for place in range(details.num_examples)
    ]
    self.num_sequences = len(self._places)
    self._split_labels = len(info.splits) > 1
    self._id_feature = id_feature if id_feature in info.features else ""

  def __getstate__(self):
    # Files are opened once per process.
    return {**self.__dict__, "_sources": None}

  @property
  def space(self) -> xr.Dataset:
    """Row and column numbers as y and x."""
    return base.index_space(*self._shape[1:3])

  def length(self, sequence: int) -> int:
    """Frames of an example; the same for all."""
    del sequence
    return self._shape[0]

  def sample_id(self, sequence: int) -> str:
    """The example's own name, or <split>_<place in the split>."""
    if not self._id_feature:
      return "{}_{}".format(*self._places[sequence])
    return self._example(sequence)[self._id_feature].decode()

  def split_label(self, sequence: int) -> str | None:
    """The split of the set; None if there is only one."""
    return self._places[sequence][0] if self._split_labels else None

  def location(self, sequence: int) -> str:
    """Split and place of an example, and the folder of the set."""
    split, place = self._places[sequence]
    return f"example {place} of split {split!r} of {self._directory}"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """Frames start to stop (excluded) of an example, [T, H, W, C] float32."""
    frames = self._example(sequence)[self._feature][start:stop]
    frames = np.asarray(frames, np.float32)
    return frames.reshape((len(frames),) + self._shape[1:])

  def _example(self, sequence: int) -> Mapping[str, np.ndarray]:
    if self._sources is None:
      builder = tfds.builder_from_directory(self._directory)
      self._sources = {
        split: builder.as_data_source(split)
        for split in dict.fromkeys(split for split, _ in self._places)
      }
    split, place = self._places[sequence]
    return self._sources[split][place]

  def _frame_shape(self, info) -> tuple[int, int, int, int]:
    """[T, H, W, C] of the feature with the frames."""
    if self._feature not in info.features:
      raise errors.unknown(
        f"feature (data.feature) of {self._directory}", self._feature, info.features
      )
    feature = info.features[self._feature]
    shape = tuple(feature.shape or ())
    if (
      len(shape) not in (3, 4)
      or None in shape
      or np.dtype(feature.np_dtype).kind not in "fiub"
    ):
      raise errors.DataError(
        f"data.feature={self._feature!r} of {self._directory} is "
        f"{np.dtype(feature.np_dtype)} of shape {shape}; expected numbers of a "
        "fixed shape [T, H, W] or [T, H, W, C]."
      )
    return shape if len(shape) == 4 else shape + (1,)


def _directory(
  builder: str,
  path: str,
  version: str,
  options: Mapping[str, Any],
  cache_dir: str | None,
) -> str:
  """The folder of the set, prepared if need be."""
  if path and (pathlib.Path(path).expanduser() / _INFO).is_file():
    return base.existing_path(path)
  if builder in prepare.BUILDERS:
    if not path and cache_dir is None:
      raise errors.DataError(
        "data.path is empty and there is no cache; set data.path to the "
        f"directory where {builder} is, or shall be, prepared."
      )
    root = (
      pathlib.Path(path).expanduser()
      if path
      else (pathlib.Path(cache_dir) / "tensorflow_datasets")
    )
    return str(
      pathlib.Path(prepare.prepare(builder, root, options, version).data_dir).absolute()
    )
  if options:
    raise errors.DataError(
      f"data.builder_options are for our own builders "
      f"({', '.join(prepare.BUILDERS)}), but data.builder is {builder!r}."
    )
  root = pathlib.Path(base.existing_path(path))
  found = [
    file.parent
    for file in sorted((root / builder).rglob(_INFO))
    if version in ("", file.parent.name)
  ]
  if len(found) != 1:
    listing = ", ".join(map(str, found)) or "none"
    raise errors.DataError(
      f"Expected one prepared set data.builder={builder!r} "
      f"(data.version={version!r}) below {root}, but found {listing}. Name "
      "one with data.path, or prepare it with tensorflow-datasets."
    )
  return str(found[0])
