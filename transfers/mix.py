"""The mix checkpoints of PaliGemma and PaliGemma 2, which answer many prompts without training.

What they were trained on is not published; this evaluates them on what is: POPE with the bare
question, MMVP. `variant=pg2_3b` takes those of PaliGemma 2, of which no score is published.

Source: big_vision, configs/proj/paligemma/README.md; the lengths they were trained with: the model
cards. Prompts: free questions, `caption {lang}`, `answer {lang} {question}`, `ocr`,
`detect {a} ; {b}`, `segment {a}`.
"""

from paligemma_jax.transfers import common

LENGTHS = {224: 256, 448: 512}  # pixels -> tokens
SCORES = """mmvp/paired_acc       224  46.0@readme
            pope_random/acc       224  88.0@readme
            pope_popular/acc      224  86.63@readme
            pope_adversarial/acc  224  85.67@readme
            mmvp/paired_acc       448  45.33@readme
            pope_random/acc       448  89.37@readme
            pope_popular/acc      448  88.4@readme
            pope_adversarial/acc  448  87.47@readme"""


def get_config(arg=None):
  c, a = common.start(arg, dict.fromkeys(LENGTHS, {}), 256)
  c.input.text_len = LENGTHS[a.res]
  c.model.init = c.model.init.replace("pt_", "mix_")
  for name in ("pope_random", "pope_popular", "pope_adversarial", "mmvp"):
    path, kind = f"pope/{name}" if name != "mmvp" else name, name.partition("_")[0]
    data = common.tfds(path, "test", "text", "{question}", "answer")
    c.evals[name] = common.evaluate(data, kind, 1.0, 48, 256)
  return common.finish(c, a, SCORES, "pope", "mmvp")
