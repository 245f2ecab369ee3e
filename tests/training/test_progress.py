"""Throughput, waiting share and time left, with a clock set by hand."""

import pytest
from absl import logging

from stjax.training import progress


class _Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return _Clock()


def _progress(clock, **options):
  options = {"total_steps": 100, "items_per_step": 8} | options
  return progress.Progress(clock=clock, **options)


def test_rates_and_time_left_of_a_steady_run(clock):
  meter = _progress(clock, every_seconds=5)
  for step in range(1, 11):
    clock.now += 0.5
    scalars = meter.update(step)
    assert (scalars is None) == (step < 10)
  assert scalars["progress/steps_per_second"] == pytest.approx(2.0)
  assert scalars["progress/samples_per_second"] == pytest.approx(16.0)
  assert scalars["progress/seconds_left"] == pytest.approx(45.0)
  assert scalars["progress/input_wait_share"] == 0.0


def test_the_first_steps_compilation_does_not_count_in_the_time_left(clock):
  meter = _progress(clock, every_seconds=4)
  clock.now += 60.0
  meter.update(1)
  for step in range(2, 6):
    clock.now += 1.0
    scalars = meter.update(step)
  assert scalars["progress/seconds_left"] == pytest.approx(95.0)


def test_waiting_for_data_is_measured_since_the_last_line(clock):
  meter = _progress(clock, every_seconds=0)
  with meter.waiting():
    clock.now += 1.0
  clock.now += 3.0
  assert meter.update(1)["progress/input_wait_share"] == pytest.approx(0.25)
  clock.now += 4.0
  assert meter.update(2)["progress/input_wait_share"] == 0.0


def test_waiting_is_counted_even_if_the_input_fails(clock):
  meter = _progress(clock, every_seconds=0)
  with pytest.raises(StopIteration), meter.waiting():
    clock.now += 1.0
    raise StopIteration
  assert meter.update(1)["progress/input_wait_share"] == pytest.approx(1.0)


def test_pauses_count_in_no_rate(clock):
  meter = _progress(clock, every_seconds=4)
  for step in range(1, 5):
    clock.now += 1.0
    with meter.paused():
      clock.now += 50.0
    scalars = meter.update(step)
  assert scalars["progress/steps_per_second"] == pytest.approx(1.0)
  assert scalars["progress/seconds_left"] == pytest.approx(96.0)


def test_a_resumed_run_counts_only_its_own_steps(clock):
  meter = _progress(clock, first_step=90, every_seconds=10)
  for step in range(91, 96):
    clock.now += 2.0
    scalars = meter.update(step)
  assert scalars["progress/steps_per_second"] == pytest.approx(0.5)
  assert scalars["progress/seconds_left"] == pytest.approx(10.0)


def test_a_line_comes_every_so_many_seconds_and_at_the_end(clock):
  meter = _progress(clock, total_steps=25, every_seconds=10.0)
  lines = []
  for step in range(1, 26):
    clock.now += 1.0
    if meter.update(step) is not None:
      lines.append(step)
  assert lines == [10, 20, 25]


def test_the_line_is_readable(clock, caplog):
  logging.set_verbosity(logging.INFO)
  meter = _progress(clock, total_steps=4000, every_seconds=500)
  with caplog.at_level("INFO", logger="absl"):
    clock.now += 1.0
    meter.update(1)
    clock.now += 999.0
    meter.update(1000)
  assert caplog.messages == [
    "step 1,000 of 4,000 (25%)  8 samples/s  1 steps/s  input wait 0%  "
    "elapsed 16:40  left 50:00"
  ]


def test_durations_are_minutes_and_seconds():
  assert progress.format_duration(0.2) == "0:00"
  assert progress.format_duration(59.6) == "1:00"
  assert progress.format_duration(3725) == "1:02:05"
