"""Shared by all tests: eight fake devices, and small runs."""

import contextlib
import ctypes
import gc
import os
import pathlib
import re
import tempfile

# Before jax is imported anywhere. Small programs that run for milliseconds
# need no optimised code, but they all have to be compiled.
os.environ["XLA_FLAGS"] = (
  "--xla_force_host_platform_device_count=8"
  " --xla_backend_optimization_level=0 " + os.environ.get("XLA_FLAGS", "")
)
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="stjax_tests_")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402
from small_runs import tiny_config  # noqa: E402

from stjax.run import build as build_lib
from stjax.run import run as run_lib

# Tables of cases that each compile programs of their own. Some of each table run in
# the fast step, and these in the slow one.
_SLOW_CASES = re.compile(
  "|".join(
    (
      r"test_convolution_and_its_gradients_equal_xla\[(?!(pointwise|dense|depthwise"
      r"|depthwise dilated|grouped|dense stride 2)-zeros)",
      r"test_split_batch_and_rows_give_one_device_result\[(?!dense-shape0)",
      r"test_gradients_inside_scan_equal_xla_outside\[(?!dense)",
      r"test_a_transposed_convolution_is_one_of_the_spread_input\[(?!zeros-3)",
      r"test_bfloat16_keeps_output_dtype_and_float32_kernel_gradient\[(?!depthwise)",
      r"test_the_published_networks_have_their_number_of_parameters",
      r"test_bfloat16_is_close_to_float32\[(?!unet)",
      r"test_every_networks_forecast_fits_the_boiling_plate\[(?!default|rule)",
      r"test_stid.py::test_recomputing_the_blocks_changes_nothing\[(?!stid-)",
      r"test_samples_(have_the_mean_and_spread|do_not_depend).*\[(?!dpm)",
      r"test_samplers_work_under_jit_and_vmap\[(?!dpm)",
      r"test_wrong_input_ends_with_one_readable_message\[(?!flags[0-1]-)",
      r"test_torch_twin_with_converted_weights_equals_stjax",
      r"test_twin_of_the_train_step_has_the_loss_and_gradients_of_stjax",
      r"test_blocks_of_any_size_give_the_values_and_gradients.*\[(?!3)",
      r"test_threads_and_worker_processes_change_nothing\[(?!loader0)",
      r"test_what_does_not_fit_is_refused_and_leaves_nothing\[(?!broken)",
      r"test_only_circular_padding_has_no_preferred_place\[(?!unet)",
      r"test_the_first_gap_is_0_and_held_out_pairs_are_scored",
      r"test_scores_of_masked_weighted_data_are_those_of_plain_numpy",
      r"test_diffcast.py::test_(blocks_and_recurrent_steps|frames_are_the_outer)",
      r"test_equal_histories_differ_by_their_node",
      r"test_the_logged_rate_is_the_one_that_was_used",
      r"test_nothing_is_written_for_torch_without_a_checkpoint",
      r"test_the_unets_first_layer_sees_noisy_field_history_and_shift",
      r"test_the_histories_of_the_given_share_are_dropped_in_training_only",
      r"test_a_bound_on_points_shortens_training_and_scoring",
      r"test_torch_twins.py::test_the_forecast_is_that_of_torch\[(?!convlstm)",
      r"test_stid.py::test_every_parameter_gets_a_finite_gradient\[(?!stid-)",
      r"test_stid_in_halves_is_the_network_on_the_whole_window\[False",
      r"test_a_member_is_the_same_for_any_ensemble_chunk_and_batch",
      r"test_a_method_without_parameters_needs_no_source",
      r"test_an_update_that_is_not_finite_stops_the_run",
      r"test_lead_times_and_variables_are_weighed",
      r"test_forecasts_can_be_left_as_weatherbench_2_reads_them",
      r"test_a_kill_loses_nothing_and_other_scores_use_the_same_candidates",
      r"test_a_network_need_not_know_the_calendar_of_the_data",
    )
  )
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  for item in items:
    if _SLOW_CASES.search(item.nodeid):
      item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def forget_programs():
  """Frees compiled programs: a worker would grow to several gigabytes."""
  yield
  # Only now and then, since what a test compiled may serve the next one.
  if _resident_gib() > 1.3:
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
      ctypes.CDLL("libc.so.6").malloc_trim(0)  # Gives the memory back at once.


def _resident_gib() -> float:
  statm = pathlib.Path("/proc/self/statm")
  if not statm.exists():
    return 0.0
  return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
  """Builds a tiny run on the first device, or on `devices` of them."""

  def make(devices: int = 1, workdir=None, **changes) -> run_lib.Run:
    return build_lib.build(
      tiny_config(**changes),
      workdir or tmp_path_factory.mktemp("run"),
      devices=jax.devices()[:devices],
    )

  return make
