import numpy as np
import pytest

from paligemma_jax.checkpoint import lazy


@pytest.fixture
def stored(tmp_path):
  x = np.arange(4 * 6 * 8 * 5, dtype=np.float32).reshape(4, 6, 8, 5)
  path = tmp_path / "x"
  path.write_bytes(b"head" + x.tobytes())
  return x, lazy.Stored(lazy.File(path), 4, x.dtype, x.shape)


KEYS = [
  np.s_[...],
  np.s_[2],
  np.s_[1:3],
  np.s_[1, 2:5],
  np.s_[:, 1:2, 3:7],
  np.s_[3, ..., 2:4],
  np.s_[:, :, 5, 1],
  np.s_[-1, -2],
  np.s_[2:2],
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("min_run", [1, 100, 10**6])
def test_any_box_equals_numpy_whatever_the_length_of_the_runs(stored, key, min_run, monkeypatch):
  monkeypatch.setattr(lazy, "MIN_RUN", min_run)
  x, y = stored
  np.testing.assert_array_equal(y[key], x[key])
  np.testing.assert_array_equal(np.asarray(lazy.Part(y, key)), x[key])
  np.testing.assert_array_equal(
    lazy.Moved(y, (2, 0, 3, 1))[1:3, 2], x.transpose(2, 0, 3, 1)[1:3, 2]
  )
  np.testing.assert_array_equal(lazy.Stacked([y, y])[:, 1:2], np.stack([x, x])[:, 1:2])


def test_a_box_reads_only_its_own_bytes(stored, monkeypatch):
  monkeypatch.setattr(lazy, "MIN_RUN", 1)
  read = []
  _, y = stored
  y.on_read = lambda position, data: read.append(len(data))
  y[2, 1:3, :, 1:3]
  assert sum(read) == 2 * 8 * 2 * 4


@pytest.mark.parametrize("key", KEYS)
def test_elements_that_stand_for_others_are_read_instead_of_them(stored, key):
  x, y = stored
  wanted = x.astype(np.float64)
  wanted[2, 3], wanted[3, 5] = x[0, 1], x[1, 0]
  patched = lazy.Patched(
    y, {(2, 3): lazy.Part(y, (0, 1)), (3, 5): lazy.Part(y, (1, 0))}, np.float64
  )
  np.testing.assert_array_equal(patched[key], wanted[key])
  assert patched.dtype == patched[key].dtype == np.float64
  np.testing.assert_array_equal(lazy.Patched(y, {(): lazy.Moved(y, (0, 1, 2, 3))})[key], x[key])


def test_parts_of_parts(stored):
  x, y = stored
  part = lazy.Part(lazy.Part(y, np.s_[1:4, 2]), np.s_[1, 2:5])
  np.testing.assert_array_equal(np.asarray(part), x[1:4, 2][1, 2:5])


def test_stacking_of_two_dtypes_widens():
  class Here(lazy.Array):
    def __init__(self, x):
      self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def read(self, index):
      return self.x[index]

  narrow = Here(np.ones((2, 3), lazy.BFLOAT16))
  assert lazy.Stacked([narrow, Here(np.ones((2, 3), np.float16))])[1].dtype == np.float32
  assert lazy.Stacked([narrow, narrow])[1].dtype == lazy.BFLOAT16


@pytest.mark.parametrize("dtype", lazy.FLOATS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_is_finite(dtype, bad):
  x = np.full((3, 50), 3e4, lazy.FLOATS[dtype])
  assert lazy.is_finite(x) and lazy.is_finite(x.T)
  x[1, 7] = bad
  assert not lazy.is_finite(x) and not lazy.is_finite(x.T)


def test_a_sum_that_overflows_is_finite_all_the_same():
  assert lazy.is_finite(np.full(100, 3e38, np.float32))


def test_chunks_are_the_rows_in_order():
  x = np.arange(70, dtype=np.float32).reshape(10, 7)
  pieces = list(lazy.chunks(x, limit=3 * 7 * 4))
  assert [len(p) for p in pieces] == [3, 3, 3, 1]
  np.testing.assert_array_equal(np.concatenate(pieces), x)
