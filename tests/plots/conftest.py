"""Shared by the tests of figures."""

import pytest

from stjax.plots import style


@pytest.fixture
def figures(monkeypatch):
  """Catches figures instead of writing them."""
  caught = []
  monkeypatch.setattr(style, "save", lambda fig, path: caught.append(fig))
  return caught
