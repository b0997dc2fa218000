"""AI2D: multiple choice about diagrams, their labels replaced by letters where they are asked for.

Source: big_vision, configs/proj/paligemma/transfers/ai2d.py: two spaces after "en", a tab between the
options; training resizes with antialias, evaluation without.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=10, batch_size=256, lr=1e-5, weight_decay=1e-6))
PG2_LR = {"3b": 6e-6, "10b": 1e-6, "28b": 3e-6}  # arXiv:2412.03555, best on minival at 224
SCORES = """eval/acc  224  72.1±0.7 74.7±0.5 83.1±0.4 83.2±0.7
            eval/acc  448  73.3±0.7 76.0±0.2 84.4±0.4 84.6±0.4"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 128, PG2_LR, resize="bilinear_antialias")
  c.train.data.ai2d = _diagrams("train" if a.final else "train[:-1024]")
  splits = dict(minitrain="train[:1024]", minival="train[-1024:]", eval="test")
  common.add_evals(c, lambda s: _diagrams(s, resize="bilinear"), "vqa", 1 / 8, **splits)
  common.add_perplexity(c, _diagrams, 1 / 8, **splits)
  return common.finish(c, a, SCORES, "ai2d")


def _diagrams(split, **rules):
  prefix = "answer en  {question} choose from: {possible_answers: \t }"
  return common.tfds("ai2d", split, prefix=prefix, suffix="answer", **rules)
