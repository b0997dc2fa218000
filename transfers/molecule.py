"""Drawings of molecules as SMILES, from PaliGemma 2.

Source: arXiv:2412.03555, section 4.3: length, steps, batch, rate, label smoothing, white padding to a
square. Trained on a million molecules of PubChem rendered with Indigo, which are not redistributed;
the 5,700 pictures of the evaluation are MolScribe's. The prompt is not published: chosen.
"""

from paligemma_jax.transfers import common

HPARAMS = {448: dict(steps=30_000, batch_size=256, lr=1e-4, label_smoothing=0.1)}
SCORES = "chemdraw/full_match  448  - - 94.8@pg2"
PROMPT = "smiles"


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 256)
  c.train.data.pubchem = _molecules("train")
  splits = dict(minitrain="train[:2000]", chemdraw="test")
  common.add_evals(c, _molecules, "molecules", 1 / 10, 256, **splits)
  common.add_perplexity(c, _molecules, 1 / 10, **splits)
  return common.finish(c, a, SCORES, "molecule")


def _molecules(split):
  return common.tfds("molecule", split, prefix=PROMPT, suffix="smiles", fit="pad")
