"""The checks against the numbers of the original programs.

Each module registers functions that check the cases of some models; see
`golden.registry`. The cases themselves lie in tests/goldens.
"""

import importlib
import pkgutil

# A function is registered when its module is imported.
for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")
