"""A TrainState as the tree that a checkpoint holds, and where every leaf of it lies."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_jax import sharding
from paligemma_jax.models import tree
from paligemma_jax.train import adam8bit, step


def to_tree(state: step.TrainState, only: Collection[str] | None = None) -> dict[str, Any]:
  """{"params", "opt_state", "step", "rng"} and "ema", where one is kept; plain dicts, readable
  without this package.

  Of the parameters there are those of the flat names `only`; None: all.

  The optimizer's state is flat, path -> leaf, e.g. "1.mu.img.head.kernel" for adam's mean.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(state.opt_state)
  ema = {} if state.ema is None else {"ema": state.ema}
  params = state.params
  if only is not None:
    flat = sharding.flatten(params)
    params = sharding.unflatten({name: flat[name] for name in only})
  return ema | {
    "params": params,
    "opt_state": {_path(path, "."): leaf for path, leaf in leaves},
    "step": state.step,
    "rng": state.rng,
  }


def from_tree(tree: dict[str, Any], like: step.TrainState) -> step.TrainState:
  """Inverse of `to_tree`; `like` gives the structure of the optimizer's state, and the parameters that
  the tree does not have.
  """
  leaves, treedef = jax.tree_util.tree_flatten_with_path(like.opt_state)
  opt_state = treedef.unflatten([tree["opt_state"][_path(path, ".")] for path, _ in leaves])
  params = sharding.unflatten(sharding.flatten(like.params) | sharding.flatten(tree["params"]))
  return step.TrainState(tree["step"], params, opt_state, tree["rng"], tree.get("ema"))


def state_shardings(
  abstract: step.TrainState, leaves: Mapping[str, tree.Leaf], mesh: Mesh, rules: sharding.Rules
):
  """A TrainState of NamedShardings: moments and their scales lie where their parameters lie, the rest
  everywhere.

  Args:
    abstract: shapes, as `jax.eval_shape` gives them.
    leaves: of its parameters.
    mesh: the devices.
    rules: logical name -> mesh axes.
  """
  by_name = sharding.param_shardings(leaves, mesh, rules)
  everywhere = NamedSharding(mesh, PartitionSpec())

  def of_moment(path, x):
    path = _path(path, "/")
    for name, leaf in leaves.items():
      if path.endswith("/" + name):
        if x.shape == leaf.shape:
          return by_name[name]
        cut = adam8bit.cut(name, leaf.shape)
        if cut and x.shape == cut.absmax_shape(leaf.shape):
          return NamedSharding(mesh, cut.absmax_spec(leaf.shape, by_name[name].spec, mesh))
    return everywhere

  return step.TrainState(
    step=everywhere,
    params=sharding.unflatten(by_name),
    opt_state=jax.tree_util.tree_map_with_path(of_moment, abstract.opt_state),
    rng=everywhere,
    ema=abstract.ema
    and sharding.unflatten({n: by_name[n] for n in sharding.flatten(abstract.ema)}),
  )


def with_shardings(abstract: Any, shardings: Any) -> Any:
  """ShapeDtypeStructs with the shardings attached, the target of a restore."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
  )


def _path(path, separator: str) -> str:
  return jax.tree_util.keystr(path, simple=True, separator=separator)
