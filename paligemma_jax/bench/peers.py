"""The same work done by transformers on torch, eager and compiled; see `ours`."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

from paligemma_jax.bench import sizes
from paligemma_jax.checkpoint import formats
from paligemma_jax.models import variants
from paligemma_jax.train import adapters
from paligemma_jax.transfers import common

NAME = f"transformers {transformers.__version__}"


def train(
  folder: str, batch_size: int, recipe: str, compiled: bool
) -> dict[str, Callable[[], Any]]:
  """One step of what `recipe` trains: AdamW in one fused kernel, gradients clipped to norm 1."""
  model, config = _load(folder, _quantised() if recipe == "qlora" else None)
  if recipe != "full":
    model = adapted(model, config)
  model.train()
  trained = [p for p in model.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(trained, lr=sizes.RATE, weight_decay=0.0, fused=True)
  inputs = _inputs(config, sizes.tokens(config, batch_size, sizes.TEXT, sizes.SUPERVISED))
  forward = torch.compile(model) if compiled else model

  def once():
    loss = forward(**inputs, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())

  return {"train": once}


def generate(
  folder: str, batch_size: int, quant: str | None, compiled: bool
) -> dict[str, Callable[[], Any]]:
  """Greedy, in floats, with a growing cache; compiled: with a static one, and one program for each token."""
  model, config = _load(folder)
  model.eval()
  inputs = _inputs(config, sizes.tokens(config, batch_size, sizes.PROMPT))
  model.generation_config.eos_token_id = None  # exactly as many tokens as asked for
  options: dict[str, Any] = dict(do_sample=False, pad_token_id=0)
  if compiled:
    options |= dict(cache_implementation="static", compile_config=transformers.CompileConfig())
    options["compile_config"]._compile_all_devices = True  # by itself only on a GPU

  @torch.inference_mode()
  def once(n):
    found = model.generate(**inputs, max_new_tokens=n, min_new_tokens=n, **options)
    return found[:, -n:].tolist()

  return {str(n): lambda n=n: once(n) for n in (1, *sizes.NEW_TOKENS)}


def load(path: str, compiled: bool) -> dict[str, Callable[[], Any]]:
  """`from_pretrained`, in the dtype that ours computes in.

  It maps the file and reads nothing: the sums do, so that at the end all weights are in memory here
  too.
  """

  def once():
    model, _ = _load(path)
    for p in model.parameters():
      p.sum()

  return {"load": once}


def convert(path: str, to: str, dtype: str, compiled: bool) -> dict[str, Callable[[], Any]]:
  """`from_pretrained` and `save_pretrained`, a Hub folder in another dtype, deleted again."""
  target = to.format("peer")

  def once():
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(path, dtype=dtype)
    model.save_pretrained(target)
    shutil.rmtree(target)

  return {"convert": once}


def _load(folder, quantised=None):
  where = "cuda" if torch.cuda.is_available() else "cpu"
  dtype = torch.bfloat16 if where == "cuda" else torch.float32
  model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
    folder, dtype=dtype, quantization_config=quantised
  )
  return (model if quantised else model.to(where)), formats.open(folder).config


def _quantised():
  return transformers.BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
  )


def adapted(model, config: variants.ModelConfig):
  """The model of transformers with peft's adapters of the modules that our recipe has, `transfers/common.py`."""
  import peft

  o = common.lora()
  modules = list(adapters.layout(o, config).modules)
  made = peft.LoraConfig(r=o.rank, lora_alpha=o.alpha, target_modules=modules)
  return peft.get_peft_model(model, made)


def _inputs(config, found: sizes.Tokens) -> dict[str, torch.Tensor]:
  """Image placeholders in front of the text, pixels channels first, on the model's device."""
  where = "cuda" if torch.cuda.is_available() else "cpu"
  B, N = len(found.text), config.img.num_tokens
  images = np.full((B, N), config.llm.vocab_size, np.int64)
  ids = np.concatenate([images, found.text], axis=1)
  is_suffix = np.concatenate([np.zeros((B, N), bool), found.is_suffix], axis=1)
  inputs = dict(
    input_ids=ids,
    attention_mask=np.ones_like(ids),
    token_type_ids=is_suffix.astype(np.int64),
    pixel_values=np.ascontiguousarray(found.image.transpose(0, 3, 1, 2)),
  )
  if found.is_suffix.any():
    inputs["labels"] = np.where(is_suffix, ids, -100)
  return {name: torch.from_numpy(x).to(where) for name, x in inputs.items()}
