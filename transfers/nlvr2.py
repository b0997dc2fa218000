"""NLVR2: is a sentence about two pictures true? And MaRVL, in five languages, without training.

Source: big_vision, configs/proj/paligemma/transfers/nlvr2.py.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=3, batch_size=256, lr=1e-5, weight_decay=1e-6),
  448: dict(epochs=10, batch_size=256, lr=3e-6, weight_decay=3e-7),
}
PG2_LR = {"3b": 6e-6, "10b": 1e-6, "28b": 3e-6}  # arXiv:2412.03555, best on dev at 224
SCORES = """test/acc                          224  90.0±0.2 91.4±0.1 93.9±0.2 94.2±0.1
            test/acc                          448  88.9±0.3 91.6±0.2 93.7±0.2 94.1±0.2
            marvl=marvl_{id,sw,ta,tr,zh}/acc  224  80.6±0.3 83.5±0.2 89.5±0.2 90.6±0.2
            marvl=marvl_{id,sw,ta,tr,zh}/acc  448  76.8±0.3 82.7±0.3 89.1±0.0 89.7±0.1"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 64, PG2_LR)
  nlvr2, marvl = _pairs("nlvr2"), _pairs("marvl")
  c.train.data.nlvr2 = nlvr2("train+dev" if a.final else "train")
  common.add_evals(c, nlvr2, "vqa", 0.1, minitrain="train[:10000]", dev="dev", test="test")
  for lang in ("id", "sw", "ta", "tr", "zh"):
    common.add_evals(c, marvl, "vqa", 0.1, **{f"marvl_{lang}": f"test_{lang}"})
  return common.finish(c, a, SCORES, "nlvr2", "marvl")


def _pairs(name):
  fields = (("image", "image_left"), ("image", "image_right"), ("id", "example_id"))
  rules = dict(prefix="answer en {sentence}", suffix="label", fields=fields)
  return lambda split: common.tfds(name, split, **rules)
