"""CoST against goldens: which case is checked by what."""

from collections.abc import Callable

import golden_cost_data as data
import golden_cost_diffusion as diffusion
import golden_cost_metrics as scores
import golden_cost_networks as networks
from golden_case import Case, NotBuilt

# By the case's "model".
MODELS: dict[str, Callable[[Case], None]] = {
  "STID deterministic": networks.mean,
  "STID denoiser": networks.denoiser,
  "noise schedule + diffusion step embedding table": diffusion.tables,
  "scale-aware diffusion training loss": diffusion.train_loss,
  "scale-aware reverse process": diffusion.sampling,
  "optimiser trajectory (deterministic STID)": diffusion.adam,
  "metrics": scores.run,
  **dict.fromkeys(data.MODELS, data.run),
}


def run(case: Case) -> None:
  """Runs a case of any kind."""
  if case.meta["model"] not in MODELS:
    raise NotBuilt(case.meta["model"])
  MODELS[case.meta["model"]](case)
