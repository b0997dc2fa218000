"""OK-VQA: questions that need knowledge from outside the picture, ten lemmatised answers each.

Source: big_vision, configs/proj/paligemma/transfers/okvqa.py.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=10, batch_size=128, lr=5e-6))
PG2_LR = {"3b": 3e-6, "10b": 1e-6, "28b": 1e-6}  # arXiv:2412.03555, best on minival at 224
SCORES = """eval/acc  224  63.5±0.3 64.2±0.1 68.0±0.1 71.2±0.2
            eval/acc  448  63.2±0.2 64.1±0.4 68.6±0.5 70.6±0.2"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.okvqa = _okvqa("train" if a.final else "train[:-10%]")
  splits = dict(minitrain="train[:5%]", minival="train[-10%:]", eval="val")
  common.add_evals(c, _okvqa, "vqa", 1 / 4, **splits)
  common.add_perplexity(c, _okvqa, 0.05, **splits)
  return common.finish(c, a, SCORES, "okvqa")


def _okvqa(split):
  rules = dict(suffix="answers", draw="each", fields=(("id", "question_id"),))
  return common.tfds("okvqa", split, prefix="answer en {question}", **rules)
