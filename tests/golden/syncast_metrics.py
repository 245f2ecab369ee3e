"""SynCast's scores, and how it picks pairs of forecasts."""

import functools
import re

import jax
import numpy as np

from golden.case import Case, NotBuilt, assert_close
from golden.registry import runner
from stjax import metrics
from stjax.metrics import categorical, scores
from stjax.metrics.syncast import DATA_SETS
from stjax.planning import pairs

# The physical value of the program's 1, in which each case's thresholds are.
FULL_SCALE = {"sevir": 255.0, "meteonet": 1.0, "hko7": 255.0}
# The original's names and ours.
RATIOS = {
  "bias": "frequency_bias",
  "csi": "csi",
  "far": "far",
  "hss": "hss",
  "pod": "pod",
  "sucr": "success_ratio",
}
COUNTS = {
  "hits": "hits",
  "misses": "misses",
  "fas": "false_alarms",
  "cor": "rejections",
}
POOLINGS = {"avg": "average", "max": "max"}


def score_name(original: str) -> str:
  """Returns our name of a score of events, without the threshold."""
  if match := re.fullmatch(r"csi-(\d+)-(avg|max)", original):
    return f"pooled_csi_{match[1]}_{POOLINGS[match[2]]}"
  if match := re.fullmatch(r"fss_pool(\d+)", original):
    return f"fss_{match[1]}"
  if original not in RATIOS:
    raise NotBuilt(f"score {original}")
  return RATIOS[original]


def count_name(original: str) -> str:
  """Returns our name of a total, of "hits" or of "hits_avg_pool_4"."""
  stem, *block = re.fullmatch(r"(\w+?)(?:_(avg|max)_pool_(\d+))?", original).groups()
  end = f"_{block[1]}_{POOLINGS[block[0]]}" if block[0] else ""
  return COUNTS[stem] + end


class Batches:
  """The convention "syncast" for batches of the original program.

  Such a batch [N, T, C, H, W] is one sample of N T frames here, as it has one
  range of SSIM, and every batch weighs the same.
  """

  def __init__(self, case: Case, dataset: str):
    config = case.meta["config"]
    if str(config.get("mode", "0")) != "0":
      raise NotBuilt(f"counts of mode {config['mode']}")
    self.thresholds = tuple(config["thresholds"])
    self.full_scale = FULL_SCALE[dataset]
    self.metrics = metrics.build(
      ("syncast",),
      dataset=dataset,
      thresholds=self.thresholds,
      full_scale=self.full_scale,
      epsilon=config["eps"],
    )
    mask = case.group("input").get("keep_mask")
    self.mask = None if mask is None else mask[..., None] != 0
    self._update = jax.jit(functools.partial(metrics.evaluate, self.metrics))

  def fields(self, x: np.ndarray) -> np.ndarray:
    """[..., T, C, H, W] of the program as [..., T, H, W, C] in physical units."""
    return np.moveaxis(x, -3, -1) * np.float32(self.full_scale)

  def weight(self, observation: np.ndarray) -> np.ndarray:
    return np.asarray(metrics.point_weights(observation, mask=self.mask))

  def totals(self, *batches: tuple[np.ndarray, np.ndarray]) -> list[dict]:
    """Totals of pairs of forecast [(M,) N, T, C, H, W] and observation."""
    results = []
    for forecast, target in batches:
      observation = self.fields(target)
      observation = observation.reshape(1, -1, *observation.shape[2:])
      forecast = self.fields(forecast).reshape(-1, *observation.shape)
      results.append(self._update(forecast, observation, self.weight(observation)))
    return results

  def scores(self, *batches) -> dict[str, metrics.Score]:
    """Scores of all batches together, by lead time if there is but one."""
    results = self.totals(*batches)
    if len(results) > 1:  # Batches may differ in size.
      results = [jax.tree.map(lambda x: x.sum(0, keepdims=True), t) for t in results]
    total = metrics.Accumulator(self.metrics)
    for one in results:
      total.add(one)
    return total.compute()["syncast"]

  def of_events(self, found: dict[str, metrics.Score], original: str, get):
    """The values by threshold, or their mean if the name begins with avg_."""
    stem = score_name(original.removeprefix("avg_"))
    if original.startswith("avg_"):
      return get(found[stem])
    return [get(found[f"{stem}_{categorical.name(t)}"]) for t in self.thresholds]


def overall(score: metrics.Score) -> np.ndarray:
  return score.overall


@runner("syncast", *(f"metrics_{name}" for name in DATA_SETS))
def convention(case: Case) -> None:
  """Compares counts and scores of batches, of one sequence and of one frame."""
  inputs, expected = case.group("input"), case.group("output")
  batches = Batches(case, case.meta["model"].removeprefix("metrics_"))
  number = sum(key.startswith("pred") for key in inputs)
  every = [(inputs[f"pred{i}"], inputs[f"target{i}"]) for i in range(number)]
  first, target = every[0]
  sequence, frame = (
    int(re.search(words, case.meta["notes"])[1])
    for words in (r"pred0\[(\d+)\]", r"frame (\d+)")
  )
  single = first[sequence][None], target[sequence][None]

  whole, one = batches.scores(*every), batches.scores(single)
  each = [batches.scores(batch) for batch in every]
  totals = [t["syncast"] for t in batches.totals(*every)]
  for key, wanted in expected.items():
    kind, _, rest = key.partition("_")
    if key == "thresholds":
      actual = batches.thresholds
    elif kind == "count":
      name = count_name(rest)
      actual = sum(np.asarray(t[name], np.float64).sum((0, 1)) for t in totals)
    elif kind == "single":
      actual = batches.of_events(one, rest, overall)
    elif kind == "frame":
      actual = batches.of_events(one, rest, lambda score: score.by_lead[frame])
    elif match := re.fullmatch(r"crps(\d+)_crps(?:_(avg|max)_(\d+))?", key):
      members, pooling, side = match.groups()
      forecast = first if members == "1" else np.moveaxis(inputs["ensemble"], 1, 0)
      end = f"_{side}_{POOLINGS[pooling]}" if pooling else ""
      actual = batches.scores((forecast, target))["crps" + end].overall
    elif key in ("ssim", "psnr", "mse", "mae"):
      actual = each[0][key].overall
    elif "fss" in key:  # Every batch weighs the same, whatever its size is.
      actual = np.mean([batches.of_events(x, key, overall) for x in each], 0)
    else:
      actual = batches.of_events(whole, key, overall)
    assert_close(key, np.asarray(actual, np.float32), wanted)
  if case.meta["config"]["eps"] == scores.RELEASED_EPSILON:
    check_candidate_scores(batches, single, one)


def check_candidate_scores(batches: Batches, single, one) -> None:
  """Compares the scores of candidates with those of the convention."""
  forecast, observation = (batches.fields(x) for x in single)
  weight = batches.weight(observation)
  for name in ("csi", "far"):
    score = scores.build(name, batches.thresholds, released=True)
    for per_frame, wanted in ((False, one[name].overall), (True, one[name].by_lead)):
      value, _ = score(forecast[None], observation, weight, per_frame)
      assert_close(name, value[0, 0], np.float32(wanted))


@runner("syncast", "preference_selection")
def preference_selection(case: Case) -> None:
  """Compares the scores of candidates, and the pairs of all three variants."""
  config, inputs = case.meta["config"], case.group("input")
  # The config names the thresholds in words, such as "SEVIR thresholds".
  dataset = str(config["metric"]).split()[0].lower().replace("-", "")
  if dataset not in FULL_SCALE:
    raise NotBuilt(f"thresholds {config['metric']}")
  data = DATA_SETS[dataset]
  observation, candidates = (
    np.moveaxis(inputs[key], -3, -1) * np.float32(data.full_scale)
    for key in ("gt", "candidates")
  )
  candidates = candidates.swapaxes(0, 1)
  actual, values = {}, []
  names = ("csi", "far")
  for name in names:
    score = scores.build(name, data.thresholds, released=True)
    value, eligible = (np.asarray(x) for x in score(candidates, observation))
    actual[name] = value.T
    values.append(value)
    # The last candidate is the mean of the others, and takes no part in "sample".
    whole = pairs.by_score(value[:-1], eligible[:-1], better=score.better)
    frames = score(candidates, observation, per_frame=True)
    frames = pairs.by_score(*map(np.asarray, frames), better=score.better)
    for variant, pair in (("sample", whole), ("frame", frames)):
      actual[f"{variant}_best_{name}"] = pair.chosen
      actual[f"{variant}_worst_{name}"] = pair.rejected
  both = pairs.by_two_scores(
    values,
    better=[scores.SCORES[name].better for name in names],
    top=config["top_k"],
    least_bad_loser=True,
  )
  actual |= {"both_best": both.chosen, "both_worst": both.rejected}
  for key, wanted in case.group("output").items():
    assert_close(key, actual[key], wanted)
