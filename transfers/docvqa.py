"""DocVQA: questions about scanned pages; the bare question is the prompt.

Source: big_vision, configs/proj/paligemma/transfers/docvqa.py. Scored by ANLS, officially on test by
the evaluation server. Of several answers one is drawn anew each time.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys(
  (224, 448, 896), dict(epochs=10, batch_size=256, lr=1e-5, weight_decay=1e-6)
)
PG2_LR = {"3b": 6e-6, "10b": 3e-6, "28b": 3e-6}  # arXiv:2412.03555, best on val at 224
SCORES = """test/anls       224  43.7±0.5
            test/anls       448  78.0±0.3
            test/anls       896  84.8
            tune:eval/anls  224  37.8@t15 39.9±0.3 43.9±0.6 44.9±0.4
            tune:eval/anls  448  74.1@t15 73.6±0.3 76.6±0.5 76.1±0.4"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.docvqa = _pages("train+val" if a.final else "train[:-5%]")
  seen = dict(minitrain="train[:5%]", minival="train[-5%:]", eval="val")
  common.add_evals(c, _pages, "vqa_lower", 1 / 8, 256, **seen)
  common.add_evals(c, _pages, "", 1.0, 256, test="test")  # a server has its answers
  common.add_perplexity(c, _pages, 0.05, **seen)
  return common.finish(c, a, SCORES, "docvqa")


def _pages(split):
  fields = (("id", "question_id"),)
  return common.tfds("docvqa", split, "text", "{question}", "answers", fields=fields)
