"""MIMIC-CXR: the report of a chest X-ray, its indication given as the prompt, from PaliGemma 2.

Source: arXiv:2412.03555, section 4.8: epochs and rate at 448; the rate of other sizes and pixels was
searched again, batch and length are not published: chosen. Mentions of earlier X-rays were taken out
of the reports by a language model; that text is not published.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((448, 896), dict(epochs=8, batch_size=256, lr=5e-6))
SCORES = """test/cider            896  - 19.9@pg2 17.4@pg2
            test/bleu-4           896  - 14.6@pg2 15.0@pg2
            test/rouge-l          896  - 31.9@pg2 32.4@pg2
            radgraph/radgraph_f1  896  - 28.8@pg2 29.5@pg2"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 512)
  c.train.data.mimic_cxr = _reports("train")
  common.add_evals(c, _reports, "caption", 1 / 8, 64, minival="validate")
  common.add_evals(c, _reports, "caption", 1.0, 64, test="test")
  common.add_evals(c, _reports, "radgraph", 1.0, 64, radgraph="test")
  common.add_perplexity(c, _reports, 1 / 8, minival="validate")
  return common.finish(c, a, SCORES, "mimic_cxr")


def _reports(split):
  return common.tfds("mimic_cxr", split, prefix="{indication}", suffix="report")
