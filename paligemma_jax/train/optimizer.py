"""The optimizer: which parameters train, and how a gradient becomes an update.

The chain is big_vision's (optax.py), over the parameters that are not frozen; the frozen ones are
not part of its trees at all, so they hold no state and no gradient:

    clip by global norm -> adam | adam8bit | sgd | adafactor -> * lr -> * lr_mults
    -> + weight decay * param -> * schedule -> * -1

Hence weight decay is scaled by the schedule but not by the learning rate, and it meets only what is
called `kernel`: the image tower and the head, never the decoder.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from paligemma_jax import errors
from paligemma_jax.train import adam8bit, schedule

Rules = Sequence[
  tuple[str, Any]
]  # (regex of a whole slash-joined name, value); the first match wins


class Optimizer(NamedTuple):
  """What `make` returns."""

  tx: optax.GradientTransformation  # over trees of the trainable parameters only
  trainable: tuple[str, ...]  # their slash-joined names
  factor: schedule.Schedule  # the schedule of the first rule that is not frozen, for the log
  ema_decay: float = 0.0  # of a moving average of what trains; 0: none is kept


def make(
  names: Iterable[str],
  total_steps: int,
  *,
  optimizer: str = "adam",
  lr: float,
  schedules: Rules = ((".*", {"decay_type": "cosine"}),),
  otherwise: Rules = (),
  lr_mults: Rules = (),
  weight_decay: float = 0.0,
  wd_mults: Rules = ((".*/kernel$", 1.0),),
  grad_clip_norm: float = 1.0,
  b1: float = 0.9,
  b2: float = 0.999,
  mu_dtype: str | None = None,
  momentum: float = 0.0,
  ema_decay: float = 0.0,
  batch_size: int | None = None,
  data_size: int | None = None,
) -> Optimizer:
  """Builds the chain above for the parameters `names` (slash-joined).

  Args:
    names: of all parameters of the model, frozen or not.
    total_steps: of the whole training.
    optimizer: a key of `TRANSFORMS`.
    lr: what schedule and lr_mults multiply.
    schedules: (regex, options of `schedule.make`, or None to freeze).
    otherwise: the same for names that none of `schedules` matches; with these every name must be
      covered, but they need not apply.
    lr_mults: (regex, factor > 0); names that no rule matches have 1.
    weight_decay: decoupled; of the parameter, per step, times the schedule.
    wd_mults: (regex, factor of weight_decay); names that no rule matches have 0.
    grad_clip_norm: largest global L2 norm of the trainable gradients; 0 for no clipping.
    b1: decay of adam's mean.
    b2: decay of adam's variance.
    mu_dtype: of adam's mean and of sgd's momentum, e.g. "bfloat16"; None or "": the parameter's.
    momentum: decay of sgd's sum of gradients; 0 for none, as the reference's sgd.
    ema_decay: of a moving average of the trainable parameters; 0 for none.
    batch_size: for schedules in epochs or examples.
    data_size: for schedules in epochs.

  Raises:
    UserError: a rule that matches nothing, a parameter without a schedule, nothing to train, a
      factor that is not positive, an unknown optimizer.
  """
  names = tuple(names)
  if optimizer not in TRANSFORMS:
    hint = errors.did_you_mean(optimizer, TRANSFORMS)
    raise errors.UserError(f'train.optimizer: "{optimizer}" is unknown{hint}')
  schedules = (*schedules, *otherwise)
  numbered = [(regex, i) for i, (regex, _) in enumerate(schedules)]
  which = match(numbered, names, "train.schedules", all_names=True, idle=len(otherwise))
  trainable = tuple(name for name in names if schedules[which[name]][1] is not None)
  if not trainable:
    raise errors.UserError("train: every parameter is frozen; there is nothing to train")
  if any(not mult > 0 for _, mult in lr_mults):
    raise errors.UserError("train.lr_mults: factors must be positive; freeze with train.freeze")
  sizes = dict(batch_size=batch_size, data_size=data_size)
  factors = [
    schedule.make(total_steps, **options, **sizes) if options is not None else None
    for _, options in schedules
  ]
  steps = [optax.clip_by_global_norm(grad_clip_norm)] if grad_clip_norm else []
  steps += [
    TRANSFORMS[optimizer](b1=b1, b2=b2, mu_dtype=mu_dtype or None, momentum=momentum),
    optax.scale(lr),
    _scale_by(match(lr_mults, names, "train.lr_mults")),
    _add_decay(weight_decay, match(wd_mults, names, "train.wd_mults")),
    _scale_by_schedules(factors, which),
    optax.scale(-1.0),
  ]
  first = next(f for f in factors if f is not None)
  return Optimizer(optax.chain(*steps), trainable, first, ema_decay)


def match(
  rules: Rules, names: Sequence[str], what: str, all_names: bool = False, idle: int = 0
) -> dict[str, Any]:
  """Returns name -> value of the first rule whose regex matches the whole name.

  Args:
    rules: (regex, value) pairs.
    names: slash-joined parameter names.
    what: the place in the config, for the error.
    all_names: every name must be matched.
    idle: the last so many rules need not apply.

  Raises:
    UserError: a regex that is none, that matches no name, or that never comes first.
  """
  taken: dict[str, int] = {}
  compiled = [_compile(regex, what) for regex, _ in rules]
  for name in names:
    first = next((i for i, regex in enumerate(compiled) if regex.fullmatch(name)), None)
    if first is not None:
      taken[name] = first
    elif all_names:
      raise errors.UserError(f'{what}: no rule covers "{name}"; end with (".*", …)')
  for i, (regex, _) in enumerate(rules[: len(rules) - idle]):
    if i in taken.values():
      continue
    if any(compiled[i].fullmatch(name) for name in names):
      raise errors.UserError(
        f'{what}: "{regex}" never applies, earlier rules take all it matches; move it up'
      )
    hint = errors.did_you_mean(regex, names, limit=4)
    raise errors.UserError(f'{what}: "{regex}" matches no whole parameter name{hint}')
  return {name: rules[i][1] for name, i in taken.items()}


def _compile(regex: str, what: str) -> re.Pattern:
  try:
    return re.compile(regex)
  except re.error as e:
    raise errors.UserError(f'{what}: "{regex}" is no regular expression ({e})') from None


def scale_by_adafactor(
  *,
  min_dim_size_to_factor: int = 32,
  decay_rate: float = 0.8,
  beta2_cap: float = 0.999,
  clipping_threshold: float | None = None,
  momentum: float = 0.9,
  dtype_momentum: str = "bfloat16",
) -> optax.GradientTransformation:
  """Adafactor as in "Scaling Vision Transformers" (arXiv:2106.04560, section 3.4).

  Second moments are factored into rows and columns, with decay 1 - t^-0.8 capped at 0.999; then a
  mean with a narrow accumulator, not debiased. Source: big_vision optax.py, `scale_by_adafactor`.
  """

  def decay(step, exponent):
    return jnp.minimum(beta2_cap, 1.0 - (step + 1.0) ** (-exponent))

  rms = optax.scale_by_factored_rms(
    decay_rate=decay_rate,
    min_dim_size_to_factor=min_dim_size_to_factor,
    epsilon=1e-30,
    decay_rate_fn=decay,
  )
  clip = optax.clip_by_block_rms(clipping_threshold) if clipping_threshold else optax.identity()
  return optax.chain(
    rms, clip, optax.ema(momentum, debias=False, accumulator_dtype=jnp.dtype(dtype_momentum))
  )


TRANSFORMS: dict[str, Callable[..., optax.GradientTransformation]] = {
  "adam": lambda b1, b2, mu_dtype, **_: optax.scale_by_adam(b1, b2, mu_dtype=mu_dtype),
  "adam8bit": lambda b1, b2, **_: adam8bit.scale_by_adam8bit(b1, b2),
  "sgd": lambda mu_dtype, momentum, **_: (
    optax.trace(momentum, accumulator_dtype=mu_dtype) if momentum else optax.identity()
  ),
  "adafactor": lambda **_: scale_by_adafactor(),
}


def _map_named(fn: Callable, tree: Any, *rest: Any) -> Any:
  """Maps `fn(name, leaf, …)` over trees of parameters; names are slash-joined."""

  def call(path, *leaves):
    return fn(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves)

  return jax.tree_util.tree_map_with_path(call, tree, *rest)


def _scale_by(mults: dict[str, float]) -> optax.GradientTransformation:
  return optax.stateless(
    lambda updates, params: _map_named(lambda name, u: u * mults.get(name, 1.0), updates)
  )


def _add_decay(weight_decay: float, mults: dict[str, float]) -> optax.GradientTransformation:
  def add(name, update, param):
    rate = weight_decay * mults.get(name, 0.0)
    return update + rate * param if rate else update

  return optax.stateless(lambda updates, params: _map_named(add, updates, params))


def _scale_by_schedules(
  factors: Sequence[schedule.Schedule | None], which: dict[str, int]
) -> optax.GradientTransformation:
  """Multiplies every update by the schedule of its rule; the state counts the updates done."""

  def update(updates, state, params=None):
    del params
    values = [f(state.count) if f is not None else None for f in factors]
    updates = _map_named(lambda name, u: u * values[which[name]].astype(u.dtype), updates)
    return updates, optax.ScaleByScheduleState(state.count + 1)

  init = lambda params: optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))
  return optax.GradientTransformation(init, update)
