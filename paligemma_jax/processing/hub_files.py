"""The files beside the weights that say how pictures and text become numbers.

One set serves our own loader and `AutoProcessor` of transformers 4.49 to 5: the spellings of 4.x,
which 5 still reads (5 itself writes files that 4.x cannot read).
"""

import json
from typing import NamedTuple

from paligemma_jax import errors
from paligemma_jax.processing.added_tokens import IMAGE

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # what transformers 5 writes instead, one level deeper
_OURS = "paligemma_jax"  # our key in it: what transformers has no word for
_RESAMPLE = {"bicubic": 3, "bilinear": 2, "bilinear_antialias": 2}  # Pillow's numbers
_RESIZE = {3: "bicubic", 2: "bilinear_antialias"}  # Pillow's bilinear is the antialiased one

# Steps that are taken, and steps that are not.
_FIXED = {"do_resize": True, "do_rescale": True, "do_normalize": True}
_FIXED |= {"do_center_crop": False, "do_pad": False}


class Preprocessing(NamedTuple):
  """What the files record; None where they do not."""

  res: int | None = None  # pixels a side
  num_image_tokens: int | None = None  # of one picture
  resize: str | None = None  # a name in `image.METHODS`
  text_len: int | None = None
  alpha: str | None = None  # a name in `image.ALPHAS`


def write_preprocessing(settings: Preprocessing) -> dict[str, bytes]:
  """File name -> content of `preprocessor_config.json`."""
  side = settings.res
  return {
    PREPROCESSOR: _json(
      {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_seq_length": settings.num_image_tokens,
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "PaliGemmaProcessor",
        "resample": _RESAMPLE[settings.resize],
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
        _OURS: {k: getattr(settings, k) for k in ("resize", "text_len", "alpha")},
      }
    )
  }


def read_preprocessing(files: dict[str, bytes], place: str = "") -> Preprocessing:
  """Reads what `files` record, in the spelling of transformers 4 or 5, or of `write_preprocessing`.

  Args:
    files: name -> content; files of other names are ignored.
    place: the folder, for errors.

  Raises:
    errors.UserError: not JSON, or a preprocessing that is not PaliGemma's.
  """
  found = {n: _parse(files, n, place) for n in (PREPROCESSOR, PROCESSOR) if n in files}
  if PROCESSOR in found:
    found[PROCESSOR] = found[PROCESSOR].get("image_processor")
  found = {n: d for n, d in found.items() if d is not None}
  if not found:
    return Preprocessing()
  both = [_read(d, f"{place}/{n}" if place else n) for n, d in found.items()]
  told = [(p.res, d.get("resample", 3)) for p, d in zip(both, found.values())]
  if told[0] != told[-1]:
    raise errors.UserError(
      f"{place or 'processor'}: {PREPROCESSOR} and {PROCESSOR} disagree (pixels, resample: {told[0]} "
      f"and {told[1]}), and so do releases of transformers about which counts; remove one"
    )
  return both[0]


def _read(found: dict, name: str) -> Preprocessing:
  """One description of preprocessing, from the file `name`."""
  try:
    size, ours = found.get("size"), found.get(_OURS) or {}
    sides = [size, size] if isinstance(size, int) else [size["height"], size["width"]]
    for key in ("image_mean", "image_std"):
      if any(abs(v - 0.5) > 1e-6 for v in found.get(key) or []):
        raise errors.UserError(f"{name}: {key} is {found[key]}, PaliGemma's is 0.5 throughout")
    for key, value in _FIXED.items():
      if found.get(key) not in (None, value):
        raise errors.UserError(f"{name}: {key} is {found[key]}, PaliGemma's is {value}")
    if abs((found.get("rescale_factor") or 1 / 255) - 1 / 255) > 1e-9:
      raise errors.UserError(f"{name}: rescale_factor is {found['rescale_factor']}, not 1/255")
    resize = ours.get("resize") or _RESIZE.get(int(found.get("resample", 3)))
    sides = [_positive(side) for side in sides]
    tokens, text_len = (
      value and _positive(value) for value in (found.get("image_seq_length"), ours.get("text_len"))
    )
    alpha, is_known = ours.get("alpha"), resize in _RESAMPLE
    if not isinstance(alpha, str | None):
      raise TypeError
  except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
    raise errors.UserError(
      f'{name}: not the preprocessing of PaliGemma; wanted "size": {{"height", "width"}}, "resample"'
    ) from None
  if not is_known:
    raise errors.UserError(
      f"{name}: resample {found.get('resample')} is not supported; 3 (bicubic) and 2 (bilinear) are"
    )
  if sides[0] != sides[1]:
    raise errors.UserError(f"{name}: pictures of {sides[0]} x {sides[1]} pixels; must be a square")
  return Preprocessing(sides[0], tokens, resize, text_len, alpha)


def write_tokenizer_settings(added_tokens: list[dict]) -> dict[str, bytes]:
  """The small JSON files that go with `tokenizer.model` and `tokenizer.json`.

  Args:
    added_tokens: the list of this name in `tokenizer.json`; `<image>` and what follows it was not
      in Gemma's vocabulary. It stands in the settings a second time because transformers 5 forgets
      the ones that are not special when it rebuilds the tokenizer: newlines and runs of spaces
      would fall apart.
  """
  names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
  image = next(t["id"] for t in added_tokens if t["content"] == IMAGE)
  new = {t["content"]: t["id"] for t in added_tokens if t["id"] >= image}
  flags = {t["content"]: {k: v for k, v in t.items() if k != "id"} for t in added_tokens}
  config = {
    "add_bos_token": False,
    "add_eos_token": False,
    "added_tokens_decoder": {str(t["id"]): flags[t["content"]] for t in added_tokens},
    "additional_special_tokens": [content for content in new if flags[content]["special"]],
    **names,
    "clean_up_tokenization_spaces": False,
    "legacy": False,
    "model_max_length": int(1e30),
    "processor_class": "PaliGemmaProcessor",
    "sp_model_kwargs": {},
    "spaces_between_special_tokens": False,
    "tokenizer_class": "GemmaTokenizer",
    "use_default_system_prompt": False,
  }
  by_name = {k: {x: y for x, y in flags[s].items() if x != "special"} for k, s in names.items()}
  by_name["additional_special_tokens"] = config["additional_special_tokens"]
  return {
    "tokenizer_config.json": _json(config),
    "special_tokens_map.json": _json(by_name),
    "added_tokens.json": _json(new),
  }


def _positive(value) -> int:
  if int(value) != value or value < 1:
    raise ValueError
  return int(value)


def _json(value: dict) -> bytes:
  return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _parse(files: dict[str, bytes], name: str, place: str) -> dict:
  try:
    value = json.loads(files[name])
    if not isinstance(value, dict):
      raise ValueError("not an object")
    return value
  except (ValueError, RecursionError) as e:
    raise errors.UserError(f"{place + '/' if place else ''}{name}: not JSON ({e})") from None
