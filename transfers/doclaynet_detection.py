"""DocLayNet: the layout of pages, eleven kinds of regions; as coco_detection.py, without crowds.

Source: PaliGemma 2 (arXiv:2412.03555), appendix C. Batch, rate and length are not published: chosen.
"""

from paligemma_jax.transfers import common

PAGES = ((224, 256), (448, 256), (896, 64))  # pixels, pages a step
HPARAMS = {res: dict(epochs=50, batch_size=size, lr=1e-5) for res, size in PAGES}
SCORES = """test/AP  224  50.8@pg2 46.7@pg2 50.4@pg2
            test/AP  448  64.1@pg2 62.5@pg2 63.5@pg2
            test/AP  896  66.5@pg2 66.1@pg2 66.0@pg2"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 512)
  c.train.data.doclaynet = _pages("train")
  splits = dict(minitrain="train[:1%]", minival="validation[:10%]")
  common.add_evals(c, _pages, "detection", 0.1, 64, **splits)
  common.add_evals(c, _pages, "detection", 1.0, 64, test="test")
  for e in c.evals.values():
    e.constrain = "detect_all:*"
  common.add_perplexity(c, _pages, 0.1, **splits)
  return common.finish(c, a, SCORES, "doclaynet_detection")


def _pages(split):
  fields = common.objects("objects", box="bbox", label="label")
  rules = dict(prefix="detect all classes", draw="shuffle", fields=fields)
  rules["noise"] = 85  # boxes of 6 tokens or more, to fill 512
  return common.tfds("doclaynet", split, "detect", **rules)
