"""Training the mask codec on simple shapes, and the embedded default's one-time building."""

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.datasets import digits
from paligemma_jax.models import vqvae
from paligemma_jax.processing import tokenizer
from paligemma_jax.train import codec, embedded

TINY = dict(hidden=1, embedding=4, batch_size=8)


def shapes(n=40, seed=0):
  """uint8[n, 64, 64]: upright rectangles."""
  rng, out = np.random.default_rng(seed), np.zeros((n, 64, 64), np.uint8)
  for mask in out:
    y0, x0 = rng.integers(0, 24, 2)
    y1, x1 = rng.integers(40, 65, 2)
    mask[y0:y1, x0:x1] = 255
  return out


def test_training_lowers_the_loss_and_names_its_parameters_as_published():
  lines = []
  for steps in (1, 40):
    params = codec.train(shapes(), steps=steps, lr=3e-3, progress=lines.append, **TINY)
  assert {k: v.shape for k, v in params.items()} == vqvae.param_shapes(1, 4)
  first, last = (float(line.split()[4].rstrip(",")) for line in lines)
  assert lines[-1].startswith("codec: step 40/40 loss") and last < 0.8 * first


def test_the_same_seed_gives_the_same_bits():
  a, b, c = (codec.train(shapes(), steps=3, seed=s, **TINY) for s in (1, 1, 2))
  assert all(np.array_equal(a[k], b[k]) for k in a)
  assert not np.array_equal(a[vqvae.CODEBOOK], c[vqvae.CODEBOOK])


def test_codes_out_of_use_start_again_at_features():
  few = codec.train(shapes(4), steps=8, **TINY)[vqvae.CODEBOOK]
  assert np.isfinite(few).all()


def test_a_saved_codec_is_read_by_the_model(tmp_path):
  params = codec.train(shapes(), steps=1, **TINY)
  codec.save(tmp_path / "codec.npz", params)
  got = vqvae.load(tmp_path / "codec.npz")
  assert all(np.array_equal(got[k], params[k]) for k in params)
  assert [p.name for p in tmp_path.iterdir()] == ["codec.npz"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
  with pytest.raises(errors.UserError, match="absent/codec.npz: cannot be written"):
    codec.save(tmp_path / "absent" / "codec.npz", {"x": np.zeros(1)})


def test_iou_of_a_perfect_and_an_empty_answer(monkeypatch):
  monkeypatch.setattr(vqvae, "encode", lambda params, x: x)
  monkeypatch.setattr(vqvae, "decode", lambda params, x: 2 * x - 1)
  np.testing.assert_array_equal(codec.iou({}, shapes(3), batch_size=2), 1.0)
  monkeypatch.setattr(vqvae, "decode", lambda params, x: 0 * x - 1)
  np.testing.assert_array_equal(codec.iou({}, shapes(3)), 0.0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp("cache") / "digits"
  lines = []
  small = dict(sizes={"train": 20, "val": 5}, codec_steps=2)
  assert embedded.prepare(folder, progress=lines.append, **small) == folder
  return folder, lines


def test_embedded_data_is_complete_and_nothing_half_made_stays(built):
  folder, lines = built
  assert [p.name for p in folder.parent.iterdir()] == ["digits"]
  names = {p.name for p in folder.iterdir()}
  files = {f"{split}_{task}.jsonl" for split in ("train", "val") for task in digits.TASKS}
  assert names == files | {"train", "val", "tokenizer.model", "codec.npz"}
  assert lines[-1].startswith("embedded data: ready")


def test_what_is_there_is_not_built_again(built):
  folder, _ = built
  assert embedded.prepare(folder, progress=pytest.fail) == folder


def test_vocabulary_is_small_and_questions_are_a_few_tokens(built):
  made = tokenizer.Tokenizer.from_path(built[0])
  assert made.vocab_size <= embedded.VOCAB_SIZE
  assert len(made.encode("answer en which digit is top left?")) < 20


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
  monkeypatch.setattr(codec, "train", lambda *args, **kwargs: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    embedded.prepare(tmp_path / "digits", sizes={"train": 20, "val": 2}, progress=lambda line: None)
  assert not list(tmp_path.iterdir())
