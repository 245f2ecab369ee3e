import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models
from stjax.models.denoisers import common as denoisers
from stjax.models.layers.folding import fold_frames, unfold_frames

B, T_IN, T_OUT, H, W, C = 3, 4, 2, 3, 5, 2
CALENDAR = dict(
  calendar_names=("slot_of_day", "day_of_week"),
  calendar_sizes=(6, 7),
  calendar_dims=(3, 4),
)
SMALL = dict(horizon=T_OUT, node_dim=5, embed_dim=6, num_layers=2, **CALENDAR)
STEPS = dict(num_steps=9, step_dim=8)


def arguments(name, seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  history = jax.random.normal(keys[0], (B, T_IN, H, W, C))
  if name == "stid":
    return (history,)
  noisy, shift = jax.random.normal(keys[1], (2, B, T_OUT, H, W, C))
  return noisy, jnp.array([0, 8, 3]), history, shift


def calendar(seed=0):
  draw = jax.random.randint(jax.random.key(seed), (B, T_IN + T_OUT, 2), 0, 6)
  return draw.astype(jnp.int32)


def build(name, **options):
  steps = STEPS if name == "stid_denoiser" else {}
  return models.build(name, **SMALL | steps | options)


def variables_of(module, name):
  shapes = jax.eval_shape(
    lambda key: module.init(key, *arguments(name), calendar=calendar()),
    jax.random.key(0),
  )
  generator = np.random.default_rng(1)
  return jax.tree.map(
    lambda s: jnp.asarray(0.3 * generator.standard_normal(s.shape, np.float32)), shapes
  )


NAMES = ("stid", "stid_denoiser")
KINDS = [("stid", {}), ("stid_denoiser", {}), ("stid_denoiser", {"full_window": True})]


@pytest.mark.parametrize(
  ("name", "nodes", "options", "calendar_sizes", "expected"),
  [
    ("stid", 207, {}, (2, 7), 140_972),
    ("stid", 500, dict(node_dim=64, embed_dim=64, num_layers=8), (12,), 447_308),
    # Less the table of 16 columns that the original never reads.
    ("stid_denoiser", 207, dict(full_window=True), (2, 7), 877_832 - 3_312),
    ("stid_denoiser", 500, dict(full_window=True), (12,), 677_720 - 8_000),
  ],
)
def test_the_published_networks_have_their_number_of_parameters(
  name, nodes, options, calendar_sizes, expected
):
  module = models.build(
    name,
    horizon=12,
    calendar_names=("slot_of_day", "day_of_week")[-len(calendar_sizes) :],
    calendar_sizes=calendar_sizes,
    calendar_dims=(32,) * len(calendar_sizes),
    **options,
  )
  shown, fields = models.example_arguments(module, (12, nodes, 1, 1))
  variables = jax.eval_shape(
    lambda key: module.init(key, *shown, **fields), jax.random.key(0)
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_every_parameter_gets_a_finite_gradient(name, options):
  module = build(name, **options)
  variables = variables_of(module, name)
  days = jnp.arange(B * (T_IN + T_OUT) * 2).reshape(B, -1, 2) % 6

  def loss(variables):
    y = module.apply(variables, *arguments(name), calendar=days)
    assert y.shape == (B, T_OUT, H, W, C) and y.dtype == jnp.float32
    return jnp.mean(jnp.square(y - 1))

  gradients = jax.jit(jax.grad(loss))(variables)["params"]
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_recomputing_the_blocks_changes_nothing(name, options):
  plain, remat = (build(name, remat=on, **options) for on in (False, True))
  variables = variables_of(plain, name)

  def loss(module):
    return lambda variables: jnp.mean(
      jnp.square(
        module.apply(
          variables,
          *arguments(name),
          True,
          calendar=calendar(),
          rngs={"dropout": jax.random.key(2)},
        )
      )
    )

  expected, actual = (
    jax.jit(jax.grad(loss(module)))(variables) for module in (plain, remat)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    actual,
    expected,
  )


@pytest.mark.parametrize("name", NAMES)
def test_a_node_is_forecast_from_itself_alone(name):
  module = build(name)
  variables = variables_of(module, name)

  def one_node(*given):
    y = module.apply(variables, *given, calendar=calendar())
    return jnp.sum(jnp.square(y[1, :, 2, 3]))

  floats = tuple(
    i for i, x in enumerate(arguments(name)) if jnp.issubdtype(x.dtype, jnp.floating)
  )
  gradients = jax.jit(jax.grad(one_node, argnums=floats))(*arguments(name))
  for gradient in gradients:
    own = gradient[1, :, 2, 3]
    assert (jnp.abs(own) > 0).all()
    assert jnp.abs(gradient.at[1, :, 2, 3].set(0)).max() == 0


def test_equal_histories_differ_by_their_node():
  x = jnp.ones((1, T_IN, H, W, C))

  def run(module):
    y, variables = jax.jit(module.init_with_output)(
      jax.random.key(0), x, calendar=calendar()[:1]
    )
    return y[0, 0, ..., 0], variables["params"]

  y, _ = run(build("stid"))
  assert len(np.unique(np.round(y, 6))) == H * W
  y, params = run(build("stid", node_dim=0))
  assert "node_embedding" not in params
  np.testing.assert_allclose(y, y[0, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("name", "frame"), [("stid", T_IN - 1), ("stid_denoiser", T_IN + T_OUT - 1)]
)
def test_the_time_is_that_of_the_last_known_frame(name, frame):
  module = build(name)
  variables = variables_of(module, name)

  def run(days):
    return module.apply(variables, *arguments(name), calendar=days)

  days, other = calendar(), (calendar() + 1) % 6
  expected = run(days)
  np.testing.assert_array_equal(run(other.at[:, frame].set(days[:, frame])), expected)
  for column in range(2):
    changed = days.at[:, frame, column].set(other[:, frame, column])
    assert jnp.abs(run(changed) - expected).max() > 1e-3


def test_the_mean_needs_no_calendar_of_the_future():
  module = build("stid")
  variables = variables_of(module, "stid")
  np.testing.assert_array_equal(
    module.apply(variables, *arguments("stid"), calendar=calendar()),
    module.apply(variables, *arguments("stid"), calendar=calendar()[:, :T_IN]),
  )


def test_frames_are_folded_with_the_channel_innermost():
  x = arguments("stid")[0]
  folded = fold_frames(x)
  assert folded.shape == (B, H, W, T_IN * C)
  np.testing.assert_array_equal(folded[..., 3 * C + 1], x[:, 3, ..., 1])
  np.testing.assert_array_equal(unfold_frames(folded, T_IN), x)


def test_the_full_window_is_the_same_network_with_more_inputs():
  full = build("stid_denoiser", full_window=True)
  clean = build("stid_denoiser")
  variables = variables_of(full, "stid_denoiser")
  params = dict(variables["params"])
  # Rows of the kernel: frame, known or unknown, channel.
  kernel = params["window"]["kernel"].reshape(T_IN + T_OUT, 2, C, -1)
  rows = [kernel[:T_IN, 0], kernel[T_IN:, 0], kernel[T_IN:, 1]]
  kernel = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in rows])
  params["window"] = params["window"] | {"kernel": kernel}
  params["readout"] = {
    key: value[..., T_IN * C :] for key, value in params["readout"].items()
  }
  given = arguments("stid_denoiser")
  np.testing.assert_allclose(
    clean.apply({"params": params}, *given, calendar=calendar()),
    full.apply(variables, *given, calendar=calendar()),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize("value", [7, 1000, -1])
def test_a_time_beyond_its_table_is_not_clamped(value):
  module = build("stid")
  variables = variables_of(module, "stid")
  days = calendar().at[1, T_IN - 1, 1].set(value)
  y = module.apply(variables, *arguments("stid"), calendar=days)
  assert jnp.isnan(y[1]).all()
  assert jnp.isfinite(y[::2]).all()


@pytest.mark.parametrize("step", [9, -1])
def test_a_step_beyond_the_table_is_not_clamped(step):
  module = build("stid_denoiser")
  variables = variables_of(module, "stid_denoiser")
  noisy, steps, *rest = arguments("stid_denoiser")
  y = module.apply(variables, noisy, steps.at[1].set(step), *rest, calendar=calendar())
  assert jnp.isnan(y[1]).all()
  assert jnp.isfinite(y[::2]).all()


def test_divisors_look_up_the_truncated_quotient():
  scaled = build("stid_denoiser", calendar_divisors=(4, 7))
  plain = build("stid_denoiser")
  variables = variables_of(plain, "stid_denoiser")
  days = jnp.zeros((B, T_IN + T_OUT, 2), jnp.int32)
  days = days.at[:, -1].set(jnp.array([[5, 6], [3, 7], [8, 13]]))
  quotients = days.at[:, -1].set(jnp.array([[1, 0], [0, 1], [2, 1]]))
  given = arguments("stid_denoiser")
  np.testing.assert_array_equal(
    scaled.apply(variables, *given, calendar=days),
    plain.apply(variables, *given, calendar=quotients),
  )


def test_a_network_without_tables_needs_no_calendar():
  module = build("stid", calendar_names=(), calendar_sizes=(), calendar_dims=())
  assert module.extra_inputs == ()
  assert build("stid").extra_inputs == ("calendar",)
  variables = module.init(jax.random.key(0), *arguments("stid"))
  expected = module.apply(variables, *arguments("stid"))
  np.testing.assert_array_equal(
    module.apply(variables, *arguments("stid"), calendar=calendar()), expected
  )


def test_one_step_serves_the_whole_batch():
  module = build("stid_denoiser")
  variables = variables_of(module, "stid_denoiser")
  noisy, _, *rest = arguments("stid_denoiser")

  def run(step):
    return module.apply(variables, noisy, step, *rest, calendar=calendar())

  one = run(jnp.asarray(3))
  np.testing.assert_array_equal(one, run(jnp.full(B, 3)))
  assert jnp.abs(one - run(jnp.asarray(4))).max() > 1e-3


def test_dropout_is_on_in_training_only():
  module = build("stid", dropout=0.5)
  variables = variables_of(module, "stid")

  def run(train, seed):
    return module.apply(
      variables,
      *arguments("stid"),
      train,
      calendar=calendar(),
      rngs={"dropout": jax.random.key(seed)},
    )

  np.testing.assert_array_equal(run(False, 0), run(False, 1))
  assert jnp.abs(run(True, 0) - run(True, 1)).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_and_keeps_float32_parameters(name):
  module = build(name, dtype="bfloat16")
  variables = variables_of(module, name)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  given = arguments(name)
  y = module.apply(variables, *given, calendar=calendar())
  exact = build(name).apply(variables, *given, calendar=calendar())
  assert y.dtype == jnp.float32
  error = jnp.abs(y - exact).max() / jnp.abs(exact).max()
  assert 0 < error < 0.03


def test_a_forecast_may_have_other_channels():
  module = build("stid", out_channels=3)
  shown = arguments("stid")
  y, _ = module.init_with_output(jax.random.key(0), *shown, calendar=calendar())
  assert y.shape == (B, T_OUT, H, W, 3)


def test_options_may_be_lists():
  module = build("stid", calendar_sizes=[6, 7], calendar_dims=[3, 4])
  assert hash(module) == hash(build("stid")) and module == build("stid")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(calendar_sizes=(6,)), "model.calendar_sizes"),
    (dict(calendar_dims=(3, 0)), "model.calendar_dims"),
    (dict(calendar_divisors=(24,)), "model.calendar_divisors"),
    (dict(calendar_names=("month", "month")), "model.calendar_names"),
    (dict(dropout=1.0), "model.dropout"),
    (dict(num_layers=-1), "model.num_layers"),
    (dict(horizon=0), "model.horizon"),
    (dict(step_dim=7), "model.step_dim"),
    (dict(num_steps=0), "model.num_steps"),
    (dict(step_table="exakt"), "exact"),
  ],
)
def test_wrong_options_are_refused_by_name(options, message):
  with pytest.raises(models.NetworkError, match=message):
    build("stid_denoiser", **options)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (None, "data.calendar.*model.calendar_names"),
    (jnp.zeros((B, T_IN + T_OUT, 3), jnp.int32), "model.calendar_sizes.*data"),
    (jnp.zeros((B, T_IN - 1, 2), jnp.int32), "frames"),
  ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_calendar_that_does_not_fit_is_refused(name, given, message):
  module = build(name)
  with pytest.raises(models.NetworkError, match=message):
    module.init(jax.random.key(0), *arguments(name), calendar=given)


def test_frames_that_do_not_fit_are_refused():
  module = build("stid_denoiser")
  noisy, step, history, shift = arguments("stid_denoiser")
  for given, message in (
    ((noisy[:, :1], step, history, shift[:, :1]), "model.horizon"),
    ((noisy, step, history[..., :1], shift), "channels"),
    ((noisy, step, history, shift[:, :1]), "shift"),
    ((noisy, step * 1.0, history, shift), "integers"),
    ((noisy[0], step, history, shift), "T_out"),
  ):
    with pytest.raises(models.NetworkError, match=message):
      module.init(jax.random.key(0), *given, calendar=calendar())
  with pytest.raises(models.NetworkError, match="B, T, H, W, C"):
    build("stid").init(jax.random.key(0), history[0], calendar=calendar())


def test_the_step_table_is_exact_or_rounded_like_the_released_one():
  steps, j = np.arange(50)[:, None], np.arange(64)
  arguments = steps * 10.0 ** (4 * j / 63)
  exact = denoisers.step_table(50, 128, "exact")
  expected = np.concatenate([np.sin(arguments), np.cos(arguments)], axis=1)
  np.testing.assert_allclose(exact, expected, atol=1e-7)
  rounded = denoisers.step_table(50, 128, "float32")
  assert 0.02 < np.abs(rounded - exact).max() < 0.03
  np.testing.assert_array_equal(denoisers.step_table(7, 128, "float32"), rounded[:7])


def test_smooth_sinusoids_turn_at_most_one_radian_a_step():
  x = denoisers.smooth_sinusoids(jnp.arange(20), 6)
  np.testing.assert_allclose(x[:, 0], np.sin(np.arange(20)), atol=1e-6)
  np.testing.assert_allclose(x[:, 4], np.cos(np.arange(20) / 100), atol=1e-6)
  assert jnp.abs(jnp.diff(x, axis=0)).max() <= 1
