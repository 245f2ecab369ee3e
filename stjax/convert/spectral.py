"""Names of FNO's and KNO's weights in torch and here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stjax.convert.layout import COUNTERS, LAYER, NORM, POINTWISE, Leaf
from stjax.convert.mapping import Entry, NameMap
from stjax.errors import ConvertError
from stjax.models.fno import FNO
from stjax.models.kno import KNO


def modes_from_torch(weight: np.ndarray) -> np.ndarray:
  """[C_in, C_out, M_h, M_w] complex to [2, M_h, M_w, C_in, C_out] real.

  Args:
    weight: complex, or real with a last axis of real and imaginary part.
  """
  if np.iscomplexobj(weight):
    weight = np.stack([weight.real, weight.imag], axis=-1)
  if weight.ndim != 5 or weight.shape[-1] != 2:
    return weight.reshape(-1)  # Of no shape that is expected: reported.
  return np.moveaxis(weight, (0, 1), (-2, -1)).transpose(2, 0, 1, 3, 4)


def modes_to_torch(kernel: np.ndarray) -> np.ndarray:
  """The inverse of `modes_from_torch`; always complex."""
  parts = np.moveaxis(kernel, (-2, -1), (1, 2))
  weight = np.empty(parts.shape[1:], np.result_type(kernel.dtype, np.complex64))
  weight.real, weight.imag = parts
  return weight


def modes(torch: str, name: str) -> Leaf:
  """A leaf of one complex matrix for each Fourier mode."""
  return Leaf(torch, "params", name, modes_from_torch, modes_to_torch)


SPECTRAL = (modes("weights1", "positive"), modes("weights2", "negative"))
# Norms that one copy of FNO holds and never calls.
UNREAD_NORM = tuple(leaf._replace(collection=COUNTERS) for leaf in NORM)


def fno_names(network: FNO) -> NameMap:
  """The names of an FNO of any depth."""
  del network
  return NameMap(
    (
      Entry("fc0", "lift", LAYER),
      Entry("conv{i}", "layer_{i}/spectral", SPECTRAL),
      Entry("w{i}", "layer_{i}/pointwise", POINTWISE),
      Entry("bn{i}", "layer_{i}/unread_norm", UNREAD_NORM),
      Entry("fc1", "expand", LAYER),
      Entry("fc2", "readout", LAYER),
    )
  )


def kno_names(network: KNO) -> NameMap:
  """The names of a KNO."""
  del network
  return NameMap(
    (
      Entry("enc.layer", "encode", LAYER),
      Entry("dec.layer", "decode", LAYER),
      Entry("koopman_layer", "", (modes("koopman_matrix", "matrices"),)),
      Entry("w0", "pass", POINTWISE),
      Entry("norm_layer", "norm", NORM),
    )
  )


def fno_options(
  shape_in: tuple[int, int, int, int],
  modes1: int,
  modes2: int,
  width: int,
  C_in: int | None = None,
  C_out: int | None = None,
  pred_len: int | None = None,
) -> Mapping[str, Any]:
  """Translates the arguments of either original constructor of FNO2d.

  Args:
    shape_in: (T, C, H, W) of one input.
    modes1: modes along H, of either sign.
    modes2: modes along W.
    width: of the layers.
    C_in: channels of all frames together; None where it is not given.
    C_out: likewise, of the forecast.
    pred_len: frames of the forecast, of one channel each; None: those of the
      input.

  Returns:
    Options of `stjax.models.build("fno", ...)`, and in_shape (T, H, W, C).

  Raises:
    ConvertError: a C_in that shape_in has not, or a C_out that is no multiple
      of T.
  """
  t, c, h, w = shape_in
  if C_in not in (None, t * c):
    raise ConvertError(f"C_in is {C_in}; shape_in {shape_in} has {t * c}")
  if C_out is not None and C_out % t:
    raise ConvertError(f"C_out is {C_out}; expected a multiple of T = {t}")
  out_channels = 1 if pred_len else (C_out // t if C_out else None)
  return {
    "in_shape": (t, h, w, c),
    "out_channels": out_channels,
    "horizon": pred_len,
    "features": width,
    "modes_h": modes1,
    "modes_w": modes2,
  }


def kno_options(
  shape_in: tuple[int, int, int, int],
  op_size: int,
  modes_x: int = 16,
  modes_y: int = 16,
  decompose: int = 8,
  linear_type: bool = True,
  normalization: bool = False,
) -> Mapping[str, Any]:
  """Translates the arguments of the original constructor of KNO2d.

  Args:
    shape_in: (T, C, H, W) of one input; T is the length of its MLPs.
    op_size: features.
    modes_x: modes along H, of either sign.
    modes_y: modes along W.
    decompose: how often the matrices are applied.
    linear_type: whether they are without a tanh.
    normalization: whether there is a BatchNorm.

  Returns:
    Options of `stjax.models.build("kno", ...)`, and in_shape (T, H, W, C).
  """
  t, c, h, w = shape_in
  return {
    "in_shape": (t, h, w, c),
    "features": op_size,
    "modes_h": modes_x,
    "modes_w": modes_y,
    "steps": decompose,
    "linear": linear_type,
    "batch_norm": normalization,
  }
