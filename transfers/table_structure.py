"""Tables as HTML, with the box of every cell that is not empty, from PaliGemma 2.

Source: arXiv:2412.03555, section 4.2: lengths, steps, batch, rate, white padding to a square. Boxes
are xmin ymin xmax ymax (the paper prints ymax twice). The prompt is not published: chosen.
"""

from paligemma_jax.transfers import common

HPARAMS = {896: dict(steps=15_000, batch_size=256, lr=1e-4)}
SCORES = """fintabnet/teds_struct  896  - 99.2@pg2
            fintabnet/teds         896  - 98.9@pg2
            fintabnet/grits_top    896  - 99.4@pg2
            fintabnet/grits_con    896  - 99.2@pg2
            pubtabnet/teds_struct  896  - 97.6@pg2
            pubtabnet/teds         896  - 97.3@pg2
            pubtabnet/grits_top    896  - 98.0@pg2
            pubtabnet/grits_con    896  - 97.8@pg2"""
EVALUATED = {"pubtabnet": "val", "fintabnet": "test"}


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 4096)
  for name, split in EVALUATED.items():
    c.train.data[name] = _tables(name)("train")
    common.add_evals(c, _tables(name), "teds", 1 / 5, 32, **{name: split})
    common.add_perplexity(c, _tables(name), 1 / 5, **{name: f"{split}[:10%]"})
  return common.finish(c, a, SCORES, *EVALUATED)


def _tables(name):
  fields = common.objects("cells", box="bbox", label="text")
  rules = dict(prefix="table to html", fit="pad", fields=fields)
  return lambda split: common.tfds(name, split, "table", **rules)
