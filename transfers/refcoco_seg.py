"""RefCOCO, RefCOCO+ and RefCOCOg: a sentence about an object -> its box and mask, no word besides.

Source: big_vision, configs/proj/paligemma/transfers/refcoco_seg.py. Trained on the pictures that all
three have in train only; an object is drawn without replacement, then any of its sentences.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=100, batch_size=256, lr=3e-5, dropout=0.1, label_smoothing=0.3),
  448: dict(epochs=100, batch_size=256, lr=1e-5, label_smoothing=0.3),
  896: dict(epochs=100, batch_size=64, lr=1e-5, label_smoothing=0.3),
}
PG2_LR = {"3b": 1e-5, "10b": 3e-6, "28b": 1e-6}  # arXiv:2412.03555, best on RefCOCO at 224
SCORES = """refcoco_val/miou     224  73.4@readme 73.4±0.1 75.9±0.1 75.0±0.0
            refcoco_testA/miou   224  75.7±0.1 75.7±0.2 77.2±0.1 76.8±0.1
            refcoco_testB/miou   224  70.7±0.2 71.0±0.3 74.2±0.3 73.9±0.1
            refcocop_val/miou    224  68.32@readme 68.6±0.1 72.0±0.2 70.3±0.2
            refcocop_testA/miou  224  71.9±0.1 72.7±0.2 74.7±0.2 73.6±0.2
            refcocop_testB/miou  224  64.5±0.6 64.2±0.2 68.4±0.3 67.1±0.1
            refcocog_val/miou    224  67.65@readme 68.3±0.3 71.4±0.2 70.5±0.1
            refcocog_test/miou   224  68.2±0.1 69.0±0.2 71.9±0.1 70.7±0.1
            refcoco_val/miou     448  75.57@readme 76.3±0.1 78.2±0.1 77.3±0.1
            refcoco_testA/miou   448  77.9±0.1 78.6±0.3 79.7±0.1 79.3±0.1
            refcoco_testB/miou   448  72.4±0.2 73.5±0.1 76.2±0.3 74.8±0.1
            refcocop_val/miou    448  69.76@readme 72.1±0.3 74.4±0.1 72.8±0.1
            refcocop_testA/miou  448  74.2±0.2 76.1±0.2 77.7±0.2 76.6±0.1
            refcocop_testB/miou  448  64.5±0.2 67.0±0.3 71.1±0.2 68.6±0.1
            refcocog_val/miou    448  70.17@readme 72.3±0.2 74.4±0.1 73.0±0.1
            refcocog_test/miou   448  71.0±0.1 72.7±0.1 74.8±0.1 73.7±0.1
            refcoco_val/miou     896  76.94@readme
            refcoco_testA/miou   896  78.7
            refcoco_testB/miou   896  73.9
            refcocop_val/miou    896  72.18@readme
            refcocop_testA/miou  896  76.1
            refcocop_testB/miou  896  66.9
            refcocog_val/miou    896  72.22@readme
            refcocog_test/miou   896  72.7"""

KINDS = {"refcoco_unc": "refcoco", "refcocoplus_unc": "refcocop", "refcocog_umd": "refcocog"}


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 48, PG2_LR)
  c.input.codec = "vae-oid.npz"  # the mask codec's published parameters
  combined = _refer("refcocox_combined")
  c.train.data.refcoco = combined("train")
  for path, name in KINDS.items():
    splits = ("val", "test") if path.endswith("umd") else ("val", "testA", "testB")
    splits = {f"{name}_{s}": f"{s.replace('val', 'validation')}_flat" for s in splits}
    common.add_evals(c, _refer(path), "refseg", 1.0, 256, **splits)
  c.evals.refcoco_val.every = 1 / 5
  common.add_perplexity(c, combined, 0.05, minitrain="train[:5%]", val="validation")
  return common.finish(c, a, SCORES, "refcoco_seg")


def _refer(name):
  fields = common.objects("objects", box="bbox", mask="mask", sentences="refs/sentence")
  rules = dict(task="refer", prefix="{sentence}", draw="object", fields=fields)
  return lambda split: common.tfds(f"ref_coco_bv/{name}:1.4.0", split, **rules)
