"""A run's metrics at Weights & Biases as well: `config.wandb` names the project."""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from paligemma_jax import errors, storage

FILE = "wandb.json"  # in the workdir: the id of its run there


def load() -> Any:
  """Returns the module of that name.

  Raises:
    UserError: it is not installed.
  """
  try:
    import wandb
  except ImportError:
    raise errors.UserError(
      "config.wandb needs the package wandb; pip install 'paligemma_jax[wandb]', or leave it empty"
    ) from None
  return wandb


class Writer:
  """Sends what metrics.jsonl gets; a workdir that goes on continues its run there.

  Steps that a killed run has to repeat are sent again, with the same values: "step" is a metric and
  the axis of all others, since the client's own counter takes no step twice.

  Args:
    workdir: holds the id of the run, and its files unless it is in an object store.
    project: "PROJECT" or "ENTITY/PROJECT".
    config: of the run, as JSON holds it.

  Raises:
    UserError: the package is not installed, or the client cannot begin, e.g. without a login.
  """

  def __init__(self, workdir: storage.Path, project: str, config: Mapping[str, Any]):
    wandb, path = load(), workdir / FILE
    if not path.exists():
      storage.write_whole(path, json.dumps({"id": secrets.token_hex(4)}) + "\n")
    entity, _, project = project.rpartition("/")
    try:
      self._run = wandb.init(
        entity=entity or None,
        project=project,
        id=json.loads(path.read_text())["id"],
        resume="allow",  # begins it where it does not exist yet
        name=workdir.name,
        dir=None if storage.is_remote(workdir) else str(workdir),
        config=dict(config),
        allow_val_change=True,  # what may differ when a run goes on
      )
    except wandb.Error as e:
      raise errors.UserError(
        f"config.wandb: {str(e).splitlines()[0].rstrip('.')}; sign in (wandb login), set WANDB_MODE=offline, or"
        ' leave config.wandb ""'
      ) from e
    self._run.define_metric("*", step_metric="step")

  def write(self, line: Mapping[str, Any]) -> None:
    """Sends a line of metrics.jsonl."""
    self._run.log(dict(line))

  def close(self) -> None:
    """Sends what is left."""
    self._run.finish()
