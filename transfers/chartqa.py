"""ChartQA: questions about charts, by people and made from summaries, mixed by their number.

Source: big_vision, configs/proj/paligemma/transfers/chartqa.py: the bare question is the prompt. The
README has the mean of the two relaxed accuracies.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys(
  (224, 448),
  dict(epochs=30, batch_size=256, lr=1e-5, weight_decay=1e-6, dropout=0.1, label_smoothing=0.2),
)
PG2_LR = {"3b": 3e-6, "10b": 3e-7, "28b": 3e-7}  # arXiv:2412.03555, best of human on val at 224
SCORES = """human_eval/relaxed_acc      224  40.0±0.7 42.0±0.3 48.4±1.1 46.8±0.6
            human_eval/relaxed_acc      448  54.2±1.1 54.0±0.6 66.4±0.5 61.3±0.6
            augmented_eval/relaxed_acc  224  74.2±0.2 74.4±0.7 74.2±0.8 68.9±0.6
            augmented_eval/relaxed_acc  448  88.5±0.3 89.2±0.4 90.1±0.5 85.1±0.2"""
SIZES = {"human": 7398, "augmented": 20_901}  # of train: their weights, with val too


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 48, PG2_LR, resize="bilinear_antialias")
  for kind, size in SIZES.items():
    charts = _charts(kind)
    c.train.data[kind] = charts("train+val" if a.final else "train")
    c.train.data[kind].weight = float(size)
    splits = dict(minitrain="train[:5%]", minival="val", eval="test")
    splits = {f"{kind}_{name}": split for name, split in splits.items()}
    common.add_evals(c, charts, "relaxed_accuracy", 0.1, **splits)
    common.add_perplexity(c, charts, 0.05, **splits)
  return common.finish(c, a, SCORES, "chartqa")


def _charts(kind):
  rules = dict(prefix="{question}", suffix="answer", fields=(("id", "question_id"),))
  return lambda split: common.tfds(f"chartqa/{kind}", split, **rules)
