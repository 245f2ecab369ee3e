"""Weights of every family of networks, in and out."""

import jax
import numpy as np
import pytest
from torch_weights import (
  NETWORKS,
  assert_same_weights,
  build,
  family_of,
  random_variables,
  to_stjax,
  to_torch,
  torch_weights,
)

from stjax import convert
from stjax.convert.layout import COUNTERS

every_family = pytest.mark.parametrize("family", convert.FAMILIES)


def test_every_family_has_a_small_network():
  assert set(map(family_of, NETWORKS)) == set(convert.FAMILIES)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_come_back_bit_for_bit(name):
  state_dict = torch_weights(name)
  variables = to_stjax(name, state_dict)
  assert_same_weights(to_torch(name, variables), state_dict)
  variables.pop(COUNTERS, None)
  expected = dict(random_variables(name))
  assert jax.tree.structure(variables) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, variables, expected)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@every_family
def test_prefix_and_nesting_are_taken_off(family):
  state_dict = torch_weights(family)
  wrapped = {f"module.{key}": value for key, value in state_dict.items()}
  variables = to_stjax(family, {"epoch": 3, "state_dict": wrapped})
  assert_same_weights(to_torch(family, variables), state_dict)


@every_family
def test_weights_that_do_not_fit_are_named(family):
  weights = torch_weights(family)
  rules, network = convert.FAMILIES[family], build(family)
  constants = rules.constants(network, NETWORKS[family]["in_shape"])
  places = {k: rules.names(network).path(k) for k in weights if k not in constants}
  read = [key for key, (_, leaf) in places.items() if leaf.collection != COUNTERS]
  # A buffer is missed as a parameter is.
  gone = [read[0], *[key for key in read if key.endswith("running_var")][:1]]
  misshapen = next(key for key in reversed(read) if key not in gone)
  shape = weights[misshapen].shape
  for key in gone:
    del weights[key]
  weights[misshapen] = weights[misshapen][..., None]
  weights["dead.weight"] = np.ones(3)
  with pytest.raises(convert.ConvertError) as error:
    to_stjax(family, weights)
  assert sorted(map(str.strip, str(error.value).splitlines()[1:])) == sorted(
    [
      f"{misshapen}: shape {(*shape, 1)}; expected {shape}",
      "dead.weight (3,): unused",
      *(f"{key}: missing" for key in gone),
    ]
  )
