"""TallyQA: counting, with questions that take some thought told apart; and CountBenchQA.

Source: big_vision, configs/proj/paligemma/transfers/tallyqa.py. There is no validation split. The
published CountBenchQA had all 540 pictures, about 490 of which can still be had.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=2, batch_size=256, lr=1e-5),
  448: dict(epochs=2, batch_size=256, lr=1e-5, weight_decay=1e-6),
  896: dict(epochs=2, batch_size=256, lr=7e-6, weight_decay=7e-7),
}
PG2_LR = {"3b": 6e-6, "10b": 6e-7, "28b": 3e-6}  # arXiv:2412.03555, best of simple at 224
SCORES = """eval/acc/simple        224  81.7±0.2 81.8±0.1 83.2±0.1 83.4±0.1
            eval/acc/simple        448  84.9±0.1 85.3±0.1 86.2±0.1 85.7±0.1
            eval/acc/complex       224  69.6±0.1 70.3±0.3 73.4±0.1 74.2±0.1
            eval/acc/complex       448  72.3±0.2 73.6±0.2 76.7±0.3 76.8±0.2
            countbenchqa_eval/acc  224  81.9±1.6 81.0±1.0 84.0±1.4 86.4±1.6
            countbenchqa_eval/acc  448  83.1±2.1 82.0±1.2 85.3±1.7 87.4±1.0"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  tally, bench = _counts("tallyqa", "{answer}"), _counts("countbenchqa", "{number}")
  c.train.data.tallyqa = tally("train")
  common.add_evals(c, tally, "tallyqa", 1 / 4, 256, eval="test")
  common.add_evals(c, tally, "tallyqa", 0.1, 256, minitrain="train[:5%]")
  common.add_evals(c, bench, "tallyqa", 0.1, 256, countbenchqa_eval="huggingface")
  common.add_perplexity(c, tally, 0.1, minitrain="train[:5%]", eval="test")
  return common.finish(c, a, SCORES, "tallyqa", "countbenchqa")


def _counts(name, answer):
  return lambda split: common.tfds(name, split, "text", "answer en {question}", answer)
