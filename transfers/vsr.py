"""Visual Spatial Reasoning: is "the cat is left of the dog" true? `split=random` is the other split.

Source: PaliGemma 2 (arXiv:2412.03555), section 4.7 and appendix: batch, length and the searched range
of epochs, rate, decay and dropout, from which ours are chosen. Nor is the prompt published.
"""

from paligemma_jax.transfers import common

HPARAMS = {224: dict(epochs=10, batch_size=1024, lr=1e-6, weight_decay=1e-7)}
SCORES = {
  "zeroshot": "test/acc  224  - 74.8@pg2 79.8@pg2",
  "random": "test/acc  224  - 81.6@pg2 86.8@pg2",
}
LONGEST = 18  # tokens of an answer


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 64, split="zeroshot")
  scores = common.one_of("split", a.split, SCORES)
  vsr = _statements(f"vsr/{a.split}")
  c.train.data.vsr = vsr("train+dev" if a.final else "train")
  for name, split in dict(minitrain="train[:5%]", dev="dev", test="test").items():
    c.evals[name] = common.evaluate(vsr(split), "vqa", 1 / 5, LONGEST)
  common.add_perplexity(c, vsr, 1 / 5, dev="dev")
  return common.finish(c, a, scores, "vsr")


def _statements(name):
  rules = dict(prefix="answer en {caption}", suffix="answer")  # "True" or "False"
  return lambda split: common.tfds(name, split, **rules)
