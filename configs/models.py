"""Full settings of the published models by name, as the config's `model` and `input` hold them.

`MODELS["paligemma2-3b-448"]`. Text lengths are those of the pre-trained checkpoints (big_vision
configs/proj/paligemma/README.md); a transfer usually needs less. The dimensions stand in
`paligemma_jax/models/variants.py`.
"""

_TEXT_LEN = {224: 128, 448: 512, 896: 512}
_SIZES = ("paligemma-3b", "paligemma2-3b", "paligemma2-10b", "paligemma2-28b")

MODELS = {
  f"{size}-{res}": {
    "model": {"preset": size, "res": res},
    "input": {"text_len": text_len},
  }
  for size in _SIZES
  for res, text_len in _TEXT_LEN.items()
}
MODELS["tiny-112"] = {"model": {"preset": "tiny", "res": 112}, "input": {"text_len": 28}}
