"""ScienceQA: school questions with a picture; options in a new order at every visit in training.

Source: big_vision, configs/proj/paligemma/transfers/science_qa.py. The prompt's line feeds are real,
the usual one follows "Answer:".
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=20, batch_size=128, lr=1e-5, freeze_vit=True))
PG2_LR = {"3b": 6e-6, "10b": 1e-6, "28b": 1e-6}  # arXiv:2412.03555, best on val at 224
SCORES = """eval/acc  224  95.4±0.3 96.1±0.3 98.2±0.2 98.2±0.2
            eval/acc  448  95.9±0.2 96.2±0.2 98.5±0.2 98.6±0.2"""
PROMPT = "Question: {question}\nContext: {hint}\nOptions: {indexed_choices}\nAnswer:"
ANSWER = "The answer is {indexed_answer}."


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 512, PG2_LR)
  c.train.data.science_qa = _questions("train+val" if a.final else "train")
  seen = dict(minitrain="train[:5%]", minival="val")
  common.add_evals(c, _questions, "science_qa", 1 / 8, **seen, eval="test")
  common.add_perplexity(c, _questions, 0.05, **seen)
  return common.finish(c, a, SCORES, "science_qa")


def _questions(split):
  return common.tfds("science_qa", split, "options", PROMPT, ANSWER, draw="shuffle")
