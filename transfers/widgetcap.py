"""Widget Captioning: what a button does, the button outlined in red on the resized screenshot.

Source: big_vision, configs/proj/paligemma/transfers/widgetcap.py; the box as an outline instead of
loc tokens in the prompt: arXiv:2407.07726, appendix E.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys(
  (224, 448),
  dict(
    epochs=4, batch_size=64, lr=3e-6, weight_decay=3e-7, dropout=0.1, label_smoothing=0.1
  ),  # fmt: skip
)
PG2_LR = {"3b": 3e-6, "10b": 1e-6, "28b": 6e-7}  # arXiv:2412.03555, best on dev at 224
SCORES = """eval/cider  224  136.1±1.4 138.1±0.7 139.8±1.0 138.8±0.8
            eval/cider  448  148.4±0.3 151.4±0.8 151.9±0.4 148.9±0.7"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.widgetcap = _widgets("train+dev" if a.final else "train")
  common.add_evals(c, _widgets, "cider", 0.1, val="dev", eval="test")
  common.add_perplexity(c, _widgets, 0.05, minitrain="train[:5%]", minival="dev", eval="test")
  return common.finish(c, a, SCORES, "widgetcap")


def _widgets(split):
  rules = dict(draw="each", outline="bbox", fields=(("id", "image/id"),))
  return common.tfds("widgetcap", split, prefix="caption en", suffix="texts", **rules)
