import numpy as np
import pytest

from paligemma_jax.bench import sizes, tasks
from paligemma_jax.checkpoint import formats
from paligemma_jax.models import variants


@pytest.mark.parametrize("name", ["hub", "model.npz"])
def test_random_weights_are_a_checkpoint_of_that_model(tmp_path, name):
  sizes.write(sizes.TINY, tmp_path / name)
  source = formats.open(tmp_path / name)
  assert (source.config.img, source.config.llm.width) == (sizes.TINY.img, 256)
  assert sum(x.nbytes for x in source.arrays.values()) == sizes.num_bytes(sizes.TINY)


def test_both_sides_get_the_same_tokens_of_which_the_last_are_supervised():
  a, b = (sizes.tokens(sizes.TINY, 2, sizes.TEXT, sizes.SUPERVISED) for _ in range(2))
  np.testing.assert_array_equal(a.text, b.text)
  assert a.text.shape == (2, 128) and a.image.shape == (2, 224, 224, 3)
  assert a.is_suffix.sum(axis=1).tolist() == [32, 32] and a.is_suffix[:, -32:].all()


def test_a_token_reads_the_decoders_weights_and_the_cache():
  c = variants.ModelConfig(
    variants.ImageConfig(4, 1, 4, 1, 14, 28), variants.DecoderConfig(4, 2, 10, 2, 1, 3, 50)
  )
  layer = 4 + 2 * 4 * 3 + 2 * 4 * 3 + 2 * 3 * 4 + 4 + 2 * 4 * 10 + 10 * 4
  cache = 3 * (4 + 5 + 6) * 2 * 2 * 3  # rows, columns, keys and values, layers, head width
  assert tasks.token_bytes(c, 3, 5, 6) == 4 * (50 * 4 + 2 * layer + 4 + cache)
