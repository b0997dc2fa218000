"""Text detection and recognition: every word of a picture with its box, from PaliGemma 2.

Source: arXiv:2412.03555, section 4.1: length, steps, batch, rate and label smoothing. The prompt is
not published: "ocr" is that of pretraining. Words are written as detect writes objects.
"""

from paligemma_jax.transfers import common

HPARAMS = {896: dict(steps=15_000, batch_size=256, lr=1e-5, label_smoothing=0.1)}
SCORES = """icdar15/precision    896  - 81.9@pg2
            icdar15/recall       896  - 70.7@pg2
            icdar15/f1           896  - 75.9@pg2
            total_text/precision 896  - 73.8@pg2
            total_text/recall    896  - 74.5@pg2
            total_text/f1        896  - 74.2@pg2"""
TRAINED = ("icdar15", "total_text", "mlt17", "mlt19", "hiertext", "textocr", "intelocr")


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 2048)
  for name in TRAINED:
    c.train.data[name] = _words(name)("train")
  for name in ("icdar15", "total_text"):
    common.add_evals(c, _words(name), "text_spotting", 1 / 5, 32, **{name: "test"})
  common.add_perplexity(c, _words("hiertext"), 1 / 5, hiertext="validation")
  return common.finish(c, a, SCORES, *TRAINED)


def _words(name):
  fields = common.objects("words", box="bbox", label="text", ignore="illegible")
  rules = dict(prefix="ocr", draw="shuffle", fields=fields)
  return lambda split: common.tfds(name, split, "detect", **rules)
