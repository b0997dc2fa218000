"""Schedules of the learning rate: a factor for every step, multiplied with `lr`.

Same shapes and corner cases as big_vision's utils.py (`create_learning_rate_schedule`): with warmup
the factor of step 0 is exactly 0, so the first update changes nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from paligemma_jax import errors

Schedule = Callable[[jax.Array | int], jax.Array]

# What each kind of decay understands besides warmup_* and cooldown_*, with its default.
# "linear_end" is how the reference's configs spell "end".
DECAYS = {
  "cosine": {},
  "linear": {"end": 0.0, "linear_end": 0.0, "power": 1.0},
  "polynomial": {"end": 0.0, "linear_end": 0.0, "power": 1.0},
  "rsqrt": {"timescale": 10_000, "shift": 0},
  "stair": {"steps": (), "mults": ()},
}
UNITS = ("steps", "epochs", "examples", "percent")
_DURATIONS = tuple(f"{name}_{unit}" for name in ("warmup", "cooldown") for unit in UNITS)


def make(
  total_steps: int,
  *,
  decay_type: str = "cosine",
  batch_size: int | None = None,
  data_size: int | None = None,
  **options,
) -> Schedule:
  """Returns `step -> float32[]`, the factor of the learning rate at that step (0-based).

  With progress p = (step - warmup) / (total - warmup), clipped to 0..1:

      cosine              (1 + cos(pi p)) / 2
      linear, polynomial  end + (1 - end) (1 - p)^power
      rsqrt               1 / sqrt(1 + (step + shift - warmup) / timescale), from warmup on
      stair               mults[i] from steps[i] on, 1 before

  times min(1, step / warmup) and min(1, (total - step) / cooldown).

  Args:
    total_steps: of the whole training.
    decay_type: a key of `DECAYS`.
    batch_size: examples a step; needed for durations in epochs or examples.
    data_size: examples an epoch; needed for durations in epochs.
    **options: those of the decay, and durations such as warmup_steps, warmup_epochs,
      warmup_examples, warmup_percent (0..1 of the training); likewise cooldown.

  Raises:
    UserError: unknown decay or option, the same duration given twice.
  """
  if decay_type not in DECAYS:
    hint = errors.did_you_mean(decay_type, DECAYS)
    raise errors.UserError(f'schedule: decay_type "{decay_type}" is unknown{hint}')
  known = {*DECAYS[decay_type], *_DURATIONS}
  for key in sorted(options.keys() - known):
    hint = errors.did_you_mean(key, known)
    raise errors.UserError(f'schedule: "{key}" is no option of {decay_type}{hint}')
  sizes = dict(total_steps=total_steps, batch_size=batch_size, data_size=data_size)
  warmup = duration("warmup", options, **sizes)
  cooldown = duration("cooldown", options, **sizes)
  decay = _decay(decay_type, options, warmup)

  def factor(step):
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
    value = decay(step, progress)
    if warmup:
      value = value * jnp.minimum(1.0, step / warmup)
    if cooldown:
      value = value * jnp.clip((total_steps - step) / cooldown, 0.0, 1.0)
    return value

  return factor


def _decay(decay_type: str, options: dict, warmup: int) -> Callable:
  """(step, progress) -> factor, both float32[]; before warmup and cooldown."""
  get = {**DECAYS[decay_type], **options}
  if decay_type == "cosine":
    return lambda step, progress: 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
  if decay_type in ("linear", "polynomial"):
    end = options.get("end", get["linear_end"])
    return lambda step, progress: end + (1.0 - end) * (1.0 - progress) ** get["power"]
  if decay_type == "rsqrt":
    return lambda step, progress: jnp.where(
      step < warmup, 1.0, (1.0 + (step + get["shift"] - warmup) / get["timescale"]) ** -0.5
    )
  if len(get["steps"]) != len(get["mults"]):
    raise errors.UserError(
      f"schedule: stair needs one of mults for each of steps"
      f" (found {len(get['steps'])} steps, {len(get['mults'])} mults)"
    )
  bounds = jnp.array(get["steps"], jnp.float32)
  mults = jnp.array((1.0, *get["mults"]), jnp.float32)
  return lambda step, progress: mults[jnp.sum(bounds <= step)]


def duration(
  name: str,
  options: dict,
  *,
  total_steps: int | None = None,
  batch_size: int | None = None,
  data_size: int | None = None,
) -> int:
  """Steps that `NAME_steps`, `_epochs`, `_examples` or `_percent` (0..1) of `options` stand for.

  Rounded to the nearest step, but at least 1 unless it is 0; 0 when none is given.

  Raises:
    UserError: given more than once, or a size that the unit needs is not known.
  """
  given = {unit: options[f"{name}_{unit}"] for unit in UNITS if options.get(f"{name}_{unit}")}
  if not given:
    return 0
  if len(given) > 1:
    found = ", ".join(f"{name}_{unit}" for unit in given)
    raise errors.UserError(f"schedule: {name} is given more than once ({found}); keep one of them")
  ((unit, value),) = given.items()
  scale = {
    "steps": (1,),
    "percent": (total_steps,),
    "examples": (1, batch_size),
    "epochs": (data_size, batch_size),
  }[unit]
  if not all(scale):
    raise errors.UserError(
      f"schedule: {name}_{unit}={value} cannot be converted to steps because the size of the data"
      f" or of the training is not known; use {name}_steps"
    )
  steps = value * scale[0] / (scale[1] if len(scale) > 1 else 1)
  return max(1, round(steps))
