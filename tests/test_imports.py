"""The rooms of the house, and that imports between them point one way."""

import ast
import pathlib

_ROOT = pathlib.Path(__file__).parents[1]
# From the lowest room upwards; rooms of one row do not import each other.
_ROOMS = (
  ("input_pipeline",),
  ("configs",),
  ("stjax.errors",),
  ("stjax.config",),
  ("stjax.sharding",),
  ("stjax.models", "stjax.diffusion", "stjax.metrics", "stjax.planning", "stjax.plots"),
  ("stjax.methods", "stjax.convert"),
  ("stjax.training",),
  ("stjax.run",),
  ("stjax.forecasting",),
  ("stjax.verification",),
  ("stjax",),  # What is left in the root are commands.
)
_RANKS = {room: rank for rank, rooms in enumerate(_ROOMS) for room in rooms}
# Started by `python -m`, so a command wherever it lies.
_COMMANDS = ("stjax.convert.__main__", "stjax.convert.report")


def _room(module: str) -> str:
  if module in _COMMANDS:
    return "stjax"
  return max((room for room in _RANKS if f"{module}.".startswith(f"{room}.")), key=len)


def _imported(path: pathlib.Path) -> set[str]:
  """Modules of the project that a file imports."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    found |= {
      n for n in names if n.split(".")[0] in ("stjax", "input_pipeline", "configs")
    }
  return found


def _modules():
  for package in ("stjax", "input_pipeline", "configs"):
    for path in sorted((_ROOT / package).rglob("*.py")):
      relative = path.relative_to(_ROOT).with_suffix("")
      yield ".".join(relative.parts).removesuffix(".__init__"), path


def test_imports_point_to_lower_rooms():
  for module, path in _modules():
    room = _room(module)
    for name in _imported(path):
      other = _room(name)
      if other != room:
        assert _RANKS[other] < _RANKS[room], f"{module} imports {name}"
      elif room == "stjax":
        assert module in ("stjax.main", *_COMMANDS), f"{module} imports {name}"


def test_networks_import_no_config_library():
  for module, path in _modules():
    if _room(module) in ("stjax.models", "stjax.diffusion", "stjax.metrics"):
      assert "ml_collections" not in path.read_text(), module


def test_files_hold_more_than_imports():
  for module, path in _modules():
    if path.name == "__init__.py":
      continue
    body = ast.parse(path.read_text()).body
    assert any(
      not isinstance(n, ast.Import | ast.ImportFrom | ast.Expr) for n in body
    ), f"{module} only re-exports"
