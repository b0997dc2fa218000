"""GQA: questions made from scene graphs, and xGQA, their translations, without training.

Source: big_vision, configs/proj/paligemma/transfers/gqa.py. The README's mean of xGQA has English in
it, the papers' have not.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=1, batch_size=256, lr=1e-5),
  448: dict(epochs=1, batch_size=256, lr=1e-5, freeze_vit=True),
}
PG2_LR = {"3b": 3e-6, "10b": 1e-6, "28b": 3e-6}  # arXiv:2412.03555, best on minival at 224
SCORES = """testdev_balanced/acc                  224  65.6±0.4 66.2±0.3 67.2±0.2 67.3±0.2
            testdev_balanced/acc                  448  67.0±0.3 68.1±0.2 68.3±0.3 68.3±0.1
            xgqa=xgqa_{bn,de,id,ko,pt,ru,zh}/acc  224  57.3±0.2 58.6±0.2 61.4±0.1 61.1±0.1
            xgqa=xgqa_{bn,de,id,ko,pt,ru,zh}/acc  448  57.9±0.5 60.4±0.2 62.6±0.2 62.1±0.3"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR)
  gqa, xgqa = _questions("gqa"), _questions("xgqa")
  c.train.data.gqa = gqa("train_balanced+val_balanced" if a.final else "train_balanced")
  seen = dict(minitrain="train_balanced[:10000]", val_balanced="val_balanced")
  common.add_evals(c, gqa, "vqa", 1 / 8, **seen)
  common.add_evals(c, gqa, "vqa", 1.0, testdev_balanced="testdev_balanced")
  for lang in ("bn", "de", "en", "id", "ko", "pt", "ru", "zh"):
    common.add_evals(c, xgqa, "vqa", 1 / 8, **{f"xgqa_{lang}": f"test_zs_{lang}"})
  pplx = dict(minitrain="train_balanced[:5%]", minival="val_balanced[:5%]")
  common.add_perplexity(c, gqa, 0.05, **pplx)
  return common.finish(c, a, SCORES, "gqa", "xgqa")


def _questions(name):
  rules = dict(prefix="answer en {question}", suffix="answer", fields=(("id", "example_id"),))
  return lambda split: common.tfds(name, split, **rules)
