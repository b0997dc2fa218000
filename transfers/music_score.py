"""GrandStaff: staves of piano music as **kern, from PaliGemma 2.

Source: arXiv:2412.03555, section 4.4: length, steps, batch, rate, label smoothing, white padding to a
square; trained on clean and distorted pictures, evaluated on clean ones. Prompt: chosen.
"""

from paligemma_jax.transfers import common

HPARAMS = {896: dict(steps=30_000, batch_size=256, lr=1e-4, label_smoothing=0.1)}
SCORES = """-test/cer  896  - 1.6@pg2
            -test/ser  896  - 2.3@pg2
            -test/ler  896  - 6.7@pg2"""
LONGEST = 1024  # tokens of a staff


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, LONGEST)
  for kind in ("clean", "distorted"):
    c.train.data[kind] = _staves(kind)("train")
  splits = dict(minival="validation[:10%]", test="test")
  common.add_evals(c, _staves("clean"), "music", 1 / 10, 32, **splits)
  common.add_perplexity(c, _staves("clean"), 1 / 10, minival=splits["minival"])
  return common.finish(c, a, SCORES, "music_score")


def _staves(kind):
  rules = dict(prefix="transcribe the music", suffix="kern", fit="pad")
  return lambda split: common.tfds(f"grandstaff/{kind}", split, **rules)
