"""TextVQA: questions about text in photos, scored as VQAv2.

Source: big_vision, configs/proj/paligemma/transfers/textvqa.py. The official score is of test, from
the evaluation server.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=5, batch_size=256, lr=3e-6),
  448: dict(epochs=10, batch_size=256, lr=3e-6, weight_decay=3e-7),
  896: dict(epochs=10, batch_size=256, lr=3e-6),
}
PG2_LR = {"3b": 3e-6, "10b": 6e-7, "28b": 1e-6}  # arXiv:2412.03555, best on val at 224
SCORES = """test/acc       224  55.5±0.2
            test/acc       448  73.2±0.2
            test/acc       896  76.5
            tune:eval/acc  224  59.0@t15 59.6±0.3 64.0±0.3 64.7±0.2
            tune:eval/acc  448  74.6@t15 75.2±0.2 76.6±0.1 76.2±0.1"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.textvqa = _textvqa("train+val" if a.final else "train")
  common.add_evals(c, _textvqa, "vqa_v2", 1 / 8, 256, minitrain="train[:5120]", eval="val")
  common.add_evals(c, _textvqa, "", 1.0, 256, test="test")  # a server has its answers
  common.add_perplexity(c, _textvqa, 0.05, minitrain="train[:5%]", eval="val")
  return common.finish(c, a, SCORES, "textvqa")


def _textvqa(split):
  rules = dict(suffix="answers", draw="each", fields=(("id", "question_id"),))
  return common.tfds("textvqa", split, prefix="answer en {question}", **rules)
