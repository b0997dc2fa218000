"""The golden models and their prompts, as `generate` takes them."""

import functools

import jax.numpy as jnp
import numpy as np

from paligemma_jax import sharding, structs
from paligemma_jax.models import paligemma, variants
from tests import golden


@functools.cache
def load(tag: str):
  """(model, parameters); without the final soft-cap, as the golden decode outputs were made."""
  flat, sizes = golden.weights(tag), golden.config(tag)["llm"]
  recorded = {k: sizes[k] for k in variants.SETTINGS if k in sizes}
  recorded["final_logits_softcap"] = 0.0
  config = variants.recognise({k: v.shape for k, v in flat.items()}).replace(**recorded)
  params = sharding.unflatten({k: jnp.asarray(v) for k, v in flat.items()})
  return paligemma.PaliGemma(config), params


def batch(tag: str) -> structs.Batch:
  """The prompts of the decode outputs."""
  io = golden.io(tag)
  image, text = io["image"], io["dec_text"]
  frames = image.shape[1] if image.ndim == 5 else 1
  return structs.Batch(
    image=image,
    mask_image=np.ones((len(text), frames), bool),
    text=text,
    mask_ar=io["dec_mask_ar"],
    mask_input=io["dec_mask_input"],
    mask_loss=np.zeros(text.shape, np.float32),
    valid=np.ones(len(text), bool),
  )


def take(b: structs.Batch, rows) -> structs.Batch:
  """The given rows, in that order."""
  return structs.Batch(*(x[np.asarray(rows)] for x in b))
