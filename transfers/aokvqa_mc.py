"""A-OKVQA, multiple choice: the text of one of four options.

Source: big_vision, configs/proj/paligemma/transfers/aokvqa_mc.py: two spaces after "en", a tab
between the options. The answers of the test split are scored by the evaluation server.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=15, batch_size=128, lr=5e-6))
PG2_LR = {"3b": 3e-6, "10b": 3e-7, "28b": 1e-6}  # arXiv:2412.03555, best on val at 224
SCORES = """test/acc       224  76.4±0.4
            test/acc       448  76.9±0.3
            tune:eval/acc  224  78.5@t15 79.7±1.0 83.7±1.1 84.7±0.8
            tune:eval/acc  448  80.3@t15 82.5±0.4 85.9±0.2 87.0±0.3"""
OPTIONS = "multiple_choice_possible_answers"


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 128, PG2_LR, resize="bilinear_antialias")
  c.train.data.aokvqa = _choice("train + val" if a.final else "train")
  seen = dict(minitrain="train[:5%]", eval="val")
  common.add_evals(c, _choice, "vqa", 1 / 4, 256, **seen)
  common.add_evals(c, _choice, "", 1.0, 256, test="test")  # a server has its answers
  common.add_perplexity(c, _choice, 0.05, **seen)
  return common.finish(c, a, SCORES, "aokvqa")


def _choice(split):
  prefix = f"answer en  {{question}} choose from: {{{OPTIONS}: \t }}"
  answer, id_ = f"{OPTIONS}[multiple_choice_correct_idx]", (("id", "question_id"),)
  return common.tfds("aokvqa", split, prefix=prefix, suffix=answer, fields=id_)
