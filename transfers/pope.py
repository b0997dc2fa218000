"""POPE alone: is there a such-and-such in the picture? To evaluate any checkpoint; nothing is trained.

Source: big_vision, configs/proj/paligemma/transfers/pope.py. The bare question is for the mix
checkpoints; `prompt=answer` asks as VQAv2 does, for the transfer that the papers report.
"""

from paligemma_jax.transfers import common

PROMPTS = {"plain": "{question}", "answer": "answer en {question}"}
SCORES = {  # of the mix checkpoints, and of the transfer to VQAv2
  "plain": """pope_random/acc       224  88.0@readme
              pope_popular/acc      224  86.63@readme
              pope_adversarial/acc  224  85.67@readme
              pope_random/acc       448  89.37@readme
              pope_popular/acc      448  88.4@readme
              pope_adversarial/acc  448  87.47@readme""",
  "answer": """pope_random/acc       224  87.8@readme
               pope_popular/acc      224  85.87@readme
               pope_adversarial/acc  224  84.27@readme
               pope_random/acc       448  88.23@readme
               pope_popular/acc      448  86.77@readme
               pope_adversarial/acc  448  85.9@readme""",
}


def get_config(arg=None):
  c, a = common.start(arg, {224: {}, 448: {}}, 48, prompt="plain")
  rules = dict(prefix=common.one_of("prompt", a.prompt, PROMPTS), suffix="answer")
  rules |= dict(fields=(("id", "question_id"),))
  for name in ("pope_random", "pope_popular", "pope_adversarial"):
    data = common.tfds(f"pope/{name}", "test", **rules)
    c.evals[name] = common.evaluate(data, "pope", 1.0, 48, 256)
  return common.finish(c, a, SCORES[a.prompt], "pope")
