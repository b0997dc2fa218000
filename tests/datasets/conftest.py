"""The data sets that the tests of this folder read, each built once in a run."""

import pytest

from tests.datasets import miniatures


@pytest.fixture(scope="session")
def made(tmp_path_factory):
  return miniatures.Made(tmp_path_factory.mktemp)
