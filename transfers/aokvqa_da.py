"""A-OKVQA, direct answer: one of ten free answers; as okvqa.py, with a test split on a server.

Source: big_vision, configs/proj/paligemma/transfers/aokvqa_da.py. The official script leaves out the
questions marked difficult, the reference scores them all.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=10, batch_size=128, lr=5e-6))
PG2_LR = {"3b": 3e-6, "10b": 1e-6, "28b": 6e-7}  # arXiv:2412.03555, best on val at 224
SCORES = """test/acc       224  61.9±0.6
            test/acc       448  63.2±0.5
            tune:eval/acc  224  61.1@t15 64.2±0.5 68.9±0.3 70.2±0.2
            tune:eval/acc  448  65.7@t15 67.9±0.3 70.8±0.5 71.2±0.2"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.aokvqa = _direct("train + val" if a.final else "train")
  seen = dict(minitrain="train[:5%]", eval="val")
  common.add_evals(c, _direct, "vqa", 1 / 4, 256, **seen)
  common.add_evals(c, _direct, "", 1.0, 256, test="test")  # a server has its answers
  common.add_perplexity(c, _direct, 0.05, **seen)
  return common.finish(c, a, SCORES, "aokvqa")


def _direct(split):
  rules = dict(suffix="direct_answers", draw="each", fields=(("id", "question_id"),))
  return common.tfds("aokvqa", split, prefix="answer en {question}", **rules)
