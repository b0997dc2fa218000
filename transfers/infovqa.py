"""InfographicVQA: questions about infographics, answers lower-cased. The batch shrinks with the pixels.

Source: big_vision, configs/proj/paligemma/transfers/infovqa.py. Scored by ANLS, officially on test by
the evaluation server. The longest examples have 60 tokens and are cut at 48.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=3, batch_size=256, lr=1e-5, weight_decay=1e-6, label_smoothing=0.4),
  448: dict(epochs=3, batch_size=128, lr=1e-5, weight_decay=1e-6, label_smoothing=0.4),
  896: dict(epochs=3, batch_size=32, lr=3e-6, weight_decay=3e-7, label_smoothing=0.4),
}
PG2_LR = {"3b": 3e-6, "10b": 6e-7, "28b": 3e-7}  # arXiv:2412.03555, best on val at 224
SCORES = """test/anls          224  28.5±0.4
            test/anls          448  40.5±0.3
            test/anls          896  47.8
            tune:minival/anls  224  25.5@t15 25.2±0.2 33.6±0.2 36.4±0.1
            tune:minival/anls  448  37.0@t15 37.5±0.3 47.8±0.2 46.7±0.4"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 48, PG2_LR, resize="bilinear_antialias")
  c.train.data.infovqa = _graphics("train+val" if a.final else "train")
  seen = dict(minitrain="train[:5%]", minival="val")
  common.add_evals(c, _graphics, "vqa_lower", 0.1, 256, **seen)
  common.add_evals(c, _graphics, "", 1.0, 256, test="test")  # a server has its answers
  common.add_perplexity(c, _graphics, 0.05, **seen)
  return common.finish(c, a, SCORES, "infovqa")


def _graphics(split):
  rules = dict(suffix="answers", draw="each", lower=True, fields=(("id", "question_id"),))
  return common.tfds("infovqa", split, prefix="answer en {question}", **rules)
