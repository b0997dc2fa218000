"""COCO detection: the boxes and classes of all objects, in a new order at every visit.

Source: PaliGemma 2 (arXiv:2412.03555), appendix C: prompt, epochs and order. Batch, rate and length
are not published: chosen. The sequence is filled with boxes of the class <noise>, whose places have no
loss; in decoding neither that class nor the end is an answer, and a box's score is its class's.
"""

from paligemma_jax.transfers import common

BATCH = {224: 256, 448: 256, 896: 64}
HPARAMS = {res: dict(epochs=50, batch_size=size, lr=1e-5) for res, size in BATCH.items()}
SCORES = """minival/AP  224  28.7@pg2 30.4@pg2 30.3@pg2
            minival/AP  448  37.0@pg2 38.5@pg2 39.2@pg2
            minival/AP  896  41.1@pg2 42.3@pg2 43.6@pg2"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 512)
  c.train.data.coco = _coco("train")
  common.add_evals(c, _coco, "detection", 0.1, 64, minitrain="train[:1%]", minival="validation")
  for e in c.evals.values():
    e.constrain = "detect_all:*"
  common.add_perplexity(c, _coco, 0.1, minival="validation")
  return common.finish(c, a, SCORES, "coco_detection")


def _coco(split):
  fields = common.objects("objects", box="bbox", label="label", iscrowd="is_crowd", area="area")
  rules = dict(prefix="detect all classes", draw="shuffle", fields=fields)
  rules["noise"] = 85  # boxes of 6 tokens or more, to fill 512
  return common.tfds("coco/2017", split, "detect", **rules)
