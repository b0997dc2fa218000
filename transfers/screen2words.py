"""Screen2Words: summaries of what a phone's screen shows, five people each.

Source: big_vision, configs/proj/paligemma/transfers/screen2words.py.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys(
  (224, 448), dict(epochs=10, batch_size=256, lr=1e-5, dropout=0.3, label_smoothing=0.2)
)
PG2_LR = {"3b": 6e-6, "10b": 1e-6, "28b": 1e-6}  # arXiv:2412.03555, best on dev at 224
SCORES = """test/cider  224  117.6±0.7 113.3±0.8 117.8±0.7 122.8±0.5
            test/cider  448  119.6±0.7 114.0±0.5 119.1±1.9 123.4±0.8"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 24, PG2_LR)
  c.train.data.screen2words = _screens("train+dev" if a.final else "train")
  splits = dict(minitrain="train[:5%]", dev="dev", test="test")
  common.add_evals(c, _screens, "cider", 0.1, **splits)
  common.add_perplexity(c, _screens, 0.05, **splits)
  return common.finish(c, a, SCORES, "screen2words")


def _screens(split):
  prefix, id_ = "caption en", (("id", "image/id"),)
  return common.tfds("screen2_words", split, "text", prefix, "summary", fields=id_, draw="each")
