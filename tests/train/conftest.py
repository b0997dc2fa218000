"""Fixtures of the tests of training."""

import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
  """A cache folder of the module's own: nothing of another run is found in it."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("PALIGEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
