"""Recipes: which parameters train, with which optimizer, and the memory that takes.

The bytes of a PaliGemma 3B at 224 px, frozen parameters in bfloat16, in GB of 1e9 bytes:

    recipe          parameters  gradients  optimizer    sum
    full                  11.7       11.7       23.4   46.8
    attention_sgd          6.2        0.7        0.0    6.9   fits a 16 GB card
    head_only              5.9        0.0        0.0    5.9
    lora                   5.9        0.1        0.1    6.1
    qlora                  2.3        0.1        0.1    2.5

Activations come on top; with rematerialisation they are a fraction of it at small batch sizes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_dtypes  # noqa: F401 - numpy learns "bfloat16"
import numpy as np

from paligemma_jax import errors
from paligemma_jax.models import tree, variants
from paligemma_jax.train import adapters
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.transfers import common


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a recipe decides; the config's own values go before these."""

  trains: str  # regex of the names that train, in float32
  optimizer: str
  lr: float
  schedule: Mapping[str, Any]
  frozen_dtype: str = ""  # of the rest on an accelerator: "" as stored, "compute" as the products
  has_adapters: bool = False  # what trains is not a part of the model but beside it
  quant: str = ""  # the form of the weights below adapters, see `tree.parse_quant`


ADAPTERS = r".*\.lora/(a|b|m|bias)"  # names of what trains of an adapter
_WARM = {"decay_type": "cosine", "warmup_percent": 0.05}
RECIPES = {
  # Learning rate: the middle of the published transfers' 3e-6 to 1e-4.
  "full": Recipe(".*", "adam", 1e-5, _WARM),
  # big_vision configs/proj/paligemma/finetune_paligemma.ipynb
  "attention_sgd": Recipe(
    "llm/layers/attn/.*", "sgd", 0.03, {"decay_type": "cosine", "warmup_percent": 0.10}, "compute"
  ),
  # The projection from image to text alone. Learning rate chosen, not from a paper.
  "head_only": Recipe("img/head/.*", "adam", 1e-3, _WARM, "compute"),
  # Learning rate of QLoRA, arXiv:2305.14314, appendix B.2, for models up to 13B.
  "lora": Recipe(ADAPTERS, "adam", 2e-4, _WARM, "compute", has_adapters=True),
  "qlora": Recipe(ADAPTERS, "adam", 2e-4, _WARM, "compute", has_adapters=True, quant="nf4-dq"),
}


class Bytes(NamedTuple):
  """Memory of a training state over all devices, in bytes, without activations."""

  params: int
  grads: int
  optimizer: int  # its state, and the moving average where one is kept

  @property
  def total(self) -> int:
    """The sum."""
    return self.params + self.grads + self.optimizer

  def __str__(self) -> str:
    parts = zip(("parameters", "gradients", "optimizer", "sum"), (*self, self.total))
    return ", ".join(f"{name} {gigabytes(n)}" for name, n in parts)


def resolve(train: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `train` (the config's part) with the recipe's values where it leaves them open.

  Open are `optimizer` "", `lr` 0 and, in `schedule`, the decay "" and a warmup that is not given or
  None. Added are, for `optimizer.make`, `rules`, the schedules of what `freeze` and `schedules` name,
  and `otherwise`, those of all else: what the recipe trains, and the rest, which is frozen.

  Raises:
    UserError: unknown recipe.
  """
  name = train["recipe"]
  if name not in RECIPES:
    hint = errors.did_you_mean(name, RECIPES)
    raise errors.UserError(f'train.recipe: "{name}" is unknown{hint}')
  recipe = RECIPES[name]
  factor = _schedule(recipe, train.get("schedule") or {})
  rules = [(regex, None) for regex in train.get("freeze") or ()]
  for own in (train.get("schedules") or {}).values():
    own = dict(own)
    rules.append((own.pop("params"), _schedule(recipe, own)))
  return {
    **train,
    "optimizer": train.get("optimizer") or recipe.optimizer,
    "lr": train.get("lr") or recipe.lr,
    "schedule": factor,
    "rules": tuple(rules),
    "otherwise": ((recipe.trains, factor), (".*", None)),
  }


def _schedule(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
  """The recipe's schedule with what the config says about decay, warmup and cooldown."""
  given = {k: v for k, v in given.items() if v is not None and v != ""}
  own_warmup = any(key.startswith("warmup_") for key in given)
  kept = {k: v for k, v in recipe.schedule.items() if not (own_warmup and k.startswith("warmup_"))}
  return {**kept, **given}


def frozen_dtype(recipe: str, compute_dtype: str, platform: str) -> str | None:
  """Storage of the parameters that do not train; None as they are stored on disk.

  The CPU has no fast arithmetic on narrow floats and XLA would widen them again in every step, so
  there they are float32.
  """
  if platform == "cpu":
    return "float32"
  return compute_dtype if RECIPES[recipe].frozen_dtype == "compute" else None


def is_adapter(name: str) -> bool:
  """Whether a parameter belongs to an adapter and trains with it."""
  return re.fullmatch(ADAPTERS, name) is not None


def bytes_needed(
  model: variants.ModelConfig,
  recipe: str,
  *,
  frozen: str = "bfloat16",
  **train: Any,
) -> Bytes:
  """Bytes of parameters, gradients and optimizer state when `model` trains with `recipe`.

  Args:
    model: the model's dimensions.
    recipe: a key of `RECIPES`.
    frozen: dtype of the parameters that do not train; the others are float32.
    **train: what else the config's `train` says, e.g. optimizer="adafactor", mu_dtype or lora; and quant,
      the form of frozen weights.
  """
  settings = resolve({**train, "recipe": recipe})
  leaves = tree.plain(model)
  if RECIPES[recipe].has_adapters:
    few = settings.get("quant") or RECIPES[recipe].quant
    options = {**common.base().train.lora.to_dict(), **settings.get("lora", {})}
    adapted = adapters.layout(options, model).adapters(model)
    leaves = tree.formed(model, tree.Form(tree.parse_quant(few, model) if few else {}, adapted))
  bare = lambda rules: [(regex, None if options is None else {}) for regex, options in rules]
  made = optimizers.make(
    leaves,
    total_steps=1,
    optimizer=settings["optimizer"],
    lr=settings["lr"],
    schedules=bare(settings["rules"]),
    otherwise=bare(settings["otherwise"]),
    mu_dtype=settings.get("mu_dtype"),
    momentum=settings.get("momentum", 0.0),
    ema_decay=settings.get("ema_decay", 0.0),
  )
  trainable = set(made.trainable)
  dtype = lambda name, leaf: leaf.dtype or ("float32" if name in trainable else frozen)
  return state_bytes(
    {n: jax.ShapeDtypeStruct(x.shape, np.dtype(dtype(n, x))) for n, x in leaves.items()}, made
  )


def state_bytes(
  params: Mapping[str, jax.ShapeDtypeStruct], optimizer: optimizers.Optimizer
) -> Bytes:
  """As `bytes_needed`, of parameters (flat) whose dtypes are known and an optimizer that exists."""
  trained = {name: params[name] for name in optimizer.trainable}
  state = jax.eval_shape(optimizer.tx.init, trained)
  average = _size(trained) if optimizer.ema_decay else 0
  return Bytes(_size(dict(params)), _size(trained), _size(state) + average)


def _size(tree: Any) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def gigabytes(n: int) -> str:
  """A number of bytes as people read them, `46.8 GB` or `36.9 MB`."""
  return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
