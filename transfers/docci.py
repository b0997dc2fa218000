"""DOCCI: descriptions of a picture in about 136 words, from PaliGemma 2.

Source: arXiv:2412.03555, section 4.6: chosen by perplexity on test, then rated by people on the 100
pictures of qual_dev (non-entailment sentences: PaliGemma 34.3, PaliGemma 2 3B 28.4, 10B 20.3 per
cent), for which there is no automatic score. Epochs, batch and rate are not published: chosen.
"""

from paligemma_jax.transfers import common

HPARAMS = {448: dict(epochs=5, batch_size=128, lr=1e-5, weight_decay=1e-6)}
PG2_LR = {"3b": 1e-5, "10b": 3e-6, "28b": 1e-6}  # chosen
LONGEST = 192  # tokens of an answer


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 256, PG2_LR)
  c.train.data.docci = _docci("train+test" if a.final else "train")
  for split in ("qual_dev", "qual_test"):
    c.evals[split] = common.evaluate(_docci(split), "caption", 1.0, LONGEST, 64)
  common.add_perplexity(c, _docci, 1 / 5, minitrain="train[:5%]", test="test")
  return common.finish(c, a, "", "docci")


def _docci(split):
  fields = (("suffix", "description"), ("id", "example_id"))
  return common.tfds("docci", split, prefix="caption en", fields=fields)
