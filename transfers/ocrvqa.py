"""OCR-VQA: questions about the covers of books, one example for each question.

Source: big_vision, configs/proj/paligemma/transfers/ocrvqa.py. Its README has scores that are a point
higher than the paper's.
"""

from paligemma_jax.transfers import common

LR = {224: 3e-6, 448: 3e-6, 896: 1e-5}
HPARAMS = {res: dict(epochs=3, batch_size=128, lr=lr) for res, lr in LR.items()}
PG2_LR = {"3b": 1e-6, "10b": 3e-7, "28b": 3e-7}  # arXiv:2412.03555, best on minival at 224
SCORES = """eval/acc  224  72.3±0.4 73.4±0.0 74.7±0.1 75.3±0.2
            eval/acc  448  74.6±0.4 75.7±0.1 76.3±0.1 76.6±0.1
            eval/acc  896  74.9"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.ocrvqa = _covers("train+val" if a.final else "train + val[20_000:]")
  splits = dict(minitrain="train[:5120]", minival="val[:20_000]", eval="test")
  for (name, split), every in zip(splits.items(), (1 / 8, 1 / 4, 1.0)):
    common.add_evals(c, _covers, "vqa_lower", every, 256, **{name: split})
  common.add_perplexity(c, _covers, 0.1, **splits)
  return common.finish(c, a, SCORES, "ocrvqa")


def _covers(split):
  prefix, fields = "answer en {question}", (("id", "int_id"),)
  return common.tfds("ocrvqa_id", split, "text", prefix, "answer", fields=fields)
