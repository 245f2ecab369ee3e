"""The names of FNO's and KNO's weights in torch and here."""

import numpy as np

from stjax.convert.layout import LAYER, NORM, POINTWISE, Leaf, unread_layout
from stjax.convert.mapping import Entry, NameMap
from stjax.models.fno import FNO
from stjax.models.kno import KNO
from stjax.models.layers.spectral import corner_names


def modes_from_torch(weight: np.ndarray) -> np.ndarray:
  """Turns [C_in, C_out, M_h, M_w] complex into [2, M_h, M_w, C_in, C_out] real.

  Args:
    weight: complex, or real with a last axis of real and imaginary part; there
      may be more or fewer axes of modes.
  """
  if np.iscomplexobj(weight):
    weight = np.stack([weight.real, weight.imag], axis=-1)
  return np.moveaxis(weight, (-1, 0, 1), (0, -2, -1))


def modes_to_torch(kernel: np.ndarray) -> np.ndarray:
  """Inverts `modes_from_torch`; the result is always complex."""
  parts = np.moveaxis(kernel, (-2, -1), (1, 2))
  weight = np.empty(parts.shape[1:], np.result_type(kernel.dtype, np.complex64))
  weight.real, weight.imag = parts
  return weight


def modes(torch: str, name: str) -> Leaf:
  """Makes a leaf of one complex matrix for each Fourier mode."""
  return Leaf(torch, "params", name, modes_from_torch, modes_to_torch)


def spectral_layout(axes: int) -> tuple[Leaf, ...]:
  """Lays out a `SpectralConv` on a grid of this number of axes."""
  return tuple(
    modes(f"weights{number}", name) for number, name in enumerate(corner_names(axes), 1)
  )


SPECTRAL = spectral_layout(2)


def fno_names(network: FNO) -> NameMap:
  """Maps the names of an FNO of any depth."""
  del network
  return NameMap(
    (
      Entry("fc0", "lift", LAYER),
      Entry("conv{i}", "layer_{i}/spectral", SPECTRAL),
      Entry("w{i}", "layer_{i}/pointwise", POINTWISE),
      # One copy of FNO holds norms that it never calls.
      Entry("bn{i}", "layer_{i}/unread_norm", unread_layout(NORM)),
      Entry("fc1", "expand", LAYER),
      Entry("fc2", "readout", LAYER),
    )
  )


def kno_names(network: KNO) -> NameMap:
  """Maps the names of a KNO."""
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
