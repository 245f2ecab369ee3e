"""The names under which validation finds its scores."""

from stjax.verification.evaluator import Evaluator


def test_scores_of_events_and_ensembles_have_names_while_training(make_run):
  run = make_run(
    evaluation__conventions=("categorical", "ensemble", "syncast"),
    evaluation__thresholds=(0.3, 0.6),
    evaluation__scales=(4,),
  )
  names = Evaluator(run, 8, members=2).score_names()
  assert {
    "categorical/csi",
    "categorical/csi_ge_0.3",
    "categorical/far",
    "categorical/far_ge_0.6",
    "categorical/pooled_csi_4_max",
    "ensemble/crps_fair",
    "ensemble/spread_skill",
    "syncast/csi",
    "syncast/far_ge_0.3",
  } <= set(names)
