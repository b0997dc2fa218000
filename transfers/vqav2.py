"""VQAv2: short answers about photos. `--config transfers/vqav2.py:res=448,final`

Source: big_vision, configs/proj/paligemma/transfers/vqav2.py. MMVP and POPE are answered by the
same model without training; of the former the prompt is published, the builder is ours.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=10, batch_size=256, lr=1e-5, weight_decay=1e-6),
  448: dict(epochs=10, batch_size=256, lr=1e-5),
}
PG2_LR = {"3b": 3e-6, "10b": 1e-6, "28b": 1e-6}  # the best of arXiv:2412.03555, section C
# test is scored by the evaluation server
SCORES = """test/acc                                    224  83.2±0.4
            test/acc                                    448  85.6±0.2
            tune:minival/acc                            224  82.1@t15 83.0±0.2 84.3±0.2 84.5±0.1
            tune:minival/acc                            448  84.6@t15 84.8±0.2 85.8±0.1 85.8±0.2
            mmvp/paired_acc                             224  47.3
            mmvp/paired_acc                             448  45.3
            pope=pope_{random,popular,adversarial}/acc  224  86.0
            pope=pope_{random,popular,adversarial}/acc  448  87.0"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.vqav2 = _vqa("train + validation" if a.final else "train + validation[:-10240]")
  minival = "validation[-10240:]"
  common.add_evals(c, _vqa, "vqa_v2", 1 / 4, minitrain="train[:5120]", minival=minival)
  common.add_evals(c, _vqa, "", 1.0, test="test + test-dev")  # a server has its answers
  common.add_perplexity(c, _vqa, 1 / 4, minitrain="train[:20_864]", minival=minival)
  common.add_evals(c, _zero_shot("mmvp"), "mmvp", 1.0, mmvp="test")
  for kind in ("random", "popular", "adversarial"):
    data = _zero_shot(f"pope/pope_{kind}", resize="bilinear")
    common.add_evals(c, data, "pope", 1.0, **{f"pope_{kind}": "test"})
  return common.finish(c, a, SCORES, "vqav2", "mmvp", "pope")


def _vqa(split):
  prefix, fields = "answer en {question_text}", (("id", "question_id"),)
  return common.tfds("vqa", split, prefix=prefix, suffix="answers", draw="each", fields=fields)


def _zero_shot(name, resize=""):
  fields = dict(suffix="answer", fields=(("id", "question_id"),), resize=resize)
  return lambda split: common.tfds(name, split, prefix="answer en {question}", **fields)
