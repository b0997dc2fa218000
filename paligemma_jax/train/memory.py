"""When memory runs out: what the message says, and what to change."""

import contextlib
import ctypes
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from paligemma_jax import errors
from paligemma_jax.models import tree, variants
from paligemma_jax.train import recipes

EXHAUSTED = "RESOURCE_EXHAUSTED"
_AMOUNT = r"(\d+(?:\.\d+)?) ?([KMGT]?)i?B?"
# "… required for HLO temporaries (36.00G) exceeds available HBM (15.75G)"; "Used 17.3G of 15.75G hbm"
_NEEDS = (
  rf"\({_AMOUNT}\) exceeds available \w+ \({_AMOUNT}\)",
  rf"requires {_AMOUNT}, exceeds available \w+ {_AMOUNT}",
  rf"Used {_AMOUNT} of {_AMOUNT} ",
)


def release() -> None:
  """Gives what is free but still held back to the system, where glibc does the allocating.

  Compiling a training step leaves some hundred MB of that.
  """
  try:
    ctypes.CDLL(None).malloc_trim(0)
  except (AttributeError, OSError, TypeError):  # another C library
    pass


def is_exhausted(error: BaseException) -> bool:
  """Whether a device or the compiler says that memory is not enough."""
  return EXHAUSTED in str(error)


def needed(error: BaseException) -> tuple[float, float] | None:
  """(bytes that a device needs, bytes it has) where the message of `is_exhausted` names them."""
  for pattern in _NEEDS:
    match = re.search(pattern, str(error))
    if match:
      return _num_bytes(*match.groups()[:2]), _num_bytes(*match.groups()[2:])
  return None


def _num_bytes(number: str, unit: str) -> float:
  return float(number) * 1024 ** " KMGT".index(unit or " ")


@contextlib.contextmanager
def explained(*args: Any) -> Iterator[None]:
  """Raises what `explain` makes of an error for which `is_exhausted`; `args` are its further ones."""
  try:
    yield
  except jax.errors.JaxRuntimeError as e:
    if not is_exhausted(e):
      raise
    raise explain(e, *args) from e


def explain(
  error: BaseException,
  config: Mapping[str, Any],
  model: variants.ModelConfig,
  devices: int,
  evaluating: Sequence[str] = (),
) -> errors.UserError:
  """What to say instead of an error for which `is_exhausted`: what to change, the mildest first.

  Args:
    error: as JAX raises it from the training step or an evaluation.
    config: the run's, as `settings.check` returns it.
    model: the model's dimensions.
    devices: over which the state is split.
    evaluating: names of the evaluations during which it was raised; none: a training step.
  """
  known = needed(error)
  asked = re.search(rf"allocat\w+ {_AMOUNT}", str(error))
  if known:
    found = f"a device needs {_gib(known[0])} and has {_gib(known[1])}"
  elif asked:
    found = f"a device could not allocate another {_gib(_num_bytes(*asked.groups()))}"
  else:
    found = "a device is full"
  sizes = {name: config["evals"][name]["batch_size"] for name in evaluating}
  # One below the devices is filled up to them.
  todo = [f"--config.evals.{name}.batch_size={n // 2}" for name, n in sizes.items() if n > devices]
  todo += smaller(config, model, devices)
  return errors.UserError(f"out of memory: {found}. Smaller is: {'; or '.join(todo)}")


def smaller(config: Mapping[str, Any], model: variants.ModelConfig, devices: int) -> list[str]:
  """Changes of the config that need less memory; those that do not change what is learnt first."""
  c, t = config, config["train"]
  todo = []
  if devices > 1 and c["mesh"] == "single":
    todo.append(f"--config.mesh=fsdp (the state over {devices} devices)")
  if c["model"]["remat"] != "nothing_saveable":
    todo.append("--config.model.remat=nothing_saveable (activations are computed twice, not kept)")
  pieces = _next_pieces(t["batch_size"], t["accumulate"], devices)
  if pieces:
    todo.append(f"--config.train.accumulate={pieces} (the same gradient in {pieces} pieces)")
  recipe = recipes.RECIPES[t["recipe"]]
  if t["optimizer"] == "adam" and not t["mu_dtype"] and not recipe.has_adapters:
    todo.append(_with_state("--config.train.mu_dtype=bfloat16", config, model, mu_dtype="bfloat16"))
  few = c["model"]["quant"] or recipe.quant
  if recipe.has_adapters and tree.check_quant(few or "int8")[0].kind == "int8":
    words = f"--config.model.quant={_FOUR_BITS}"
    todo.append(_with_state(words, config, model, quant=_FOUR_BITS))
  elif name := _LIGHTER.get(t["recipe"]):
    # Rules over names are the user's; an adapter's parameters have other names.
    cleared = {"optimizer": "", "lr": 0.0, "mu_dtype": "", "momentum": 0.0, "freeze": ()}
    todo.append(_with_state(f"--config.train.recipe={name}", config, model, recipe=name, **cleared))
  return todo or ["more or larger devices"]


_LIGHTER = {"full": "attention_sgd", "attention_sgd": "lora"}  # recipes
_FOUR_BITS = recipes.RECIPES["qlora"].quant


def _next_pieces(batch_size: int, accumulate: int, devices: int) -> int | None:
  """The next number of pieces whose rows still divide over the devices; None: there is none."""
  rows = batch_size // devices
  return next((n for n in range(accumulate + 1, rows + 1) if rows % n == 0), None)


def _with_state(words: str, config, model: variants.ModelConfig, **changes) -> str:
  """`words`, and what parameters, gradients and optimizer then take, over all devices."""
  keys = ("recipe", "optimizer", "lr", "mu_dtype", "momentum", "ema_decay", "freeze", "lora")
  train = {key: config["train"][key] for key in keys} | {"quant": config["model"]["quant"]}
  total = recipes.bytes_needed(model, **{**train, **changes}).total
  return f"{words} (the state takes {_gib(total)} then)"


def _gib(num_bytes: float) -> str:
  return f"{num_bytes / 2**30:.2f} GiB"
