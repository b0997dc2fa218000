"""scripts/what_fits.py: cells of the table by hand, and the page that shows it."""

import pathlib
import runpy

import pytest

from paligemma_jax.models import variants
from paligemma_jax.train import recipes

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/what_fits.py"


@pytest.fixture(scope="module")
def fits():
  """What the script defines."""
  return runpy.run_path(str(SCRIPT))


def test_activations_of_3b_by_hand(fits):
  # 256 image tokens and 128 of text; 27 layers of 1,152 in the tower, 18 of 2,048 in the decoder
  kept = 4 * (27 * 256 * 1152 + 18 * 384 * 2048)
  layer = 12 * 384 * 16_384 + 6 * 8 * 384**2  # gated layer; scores of 8 heads wait
  small = variants.preset("paligemma-3b", 224)
  assert fits["of_example"](small) == fits["of_example"](small, kernel=True) == kept + layer
  # 1,024 image tokens: the scores of all 16 heads of the tower are less than the decoder's layer
  kept = 4 * (27 * 1024 * 1152 + 18 * 1152 * 2048)
  layer = 12 * 1152 * 16_384 + 6 * 8 * 1152**2
  assert fits["of_example"](variants.preset("paligemma-3b", 448)) == kept + layer
  layer = 12 * 1152 * 16_384 + 6 * 8 * 128 * 1152  # the kernel leaves the text's
  assert fits["of_example"](variants.preset("paligemma-3b", 448), kernel=True) == kept + layer


def test_the_largest_batch_fills_what_state_and_temporaries_leave(fits):
  c = variants.preset("paligemma-3b", 224)
  state = recipes.bytes_needed(c, "qlora").total
  assert state == pytest.approx(2.29e9 + 4 * 3.6 * 14.2e6, rel=0.01)  # base in NF4, 14.2 M adapters
  temporaries = 6 * 16_384 * 2048 + 12 * 2**23  # a matrix of the gated layer, loss in pieces
  example = fits["of_example"](c)
  assert fits["largest"](c, "qlora", state + temporaries + 7.5 * example) == 7
  assert fits["largest"](c, "qlora", state) == 0


def test_the_page_shows_the_table_of_today(fits):
  assert fits["BEGIN"] + fits["table"]() + fits["END"] in fits["PAGE"].read_text()
