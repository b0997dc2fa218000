"""Several processes that train or evaluate as one: joining them, and stopping them together."""

import contextlib
import glob
import importlib.util
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping

from paligemma_jax import errors

_OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join() -> None:
  """Joins the other processes of the run, where the environment says that there are some.

  Call it before anything starts a JAX backend. Understood are, in this order, the three variables
  JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID (as
  Kubernetes manifests set them), a step of Slurm (`srun`), Open MPI, and TPU VMs, which know their
  pod.

  Raises:
    UserError: the variables are incomplete.
    RunError: the others do not answer.
  """
  kind = environment(os.environ)
  if not kind:
    return
  import jax

  options = {}
  if kind == "jax":
    address, count, index = (os.environ[name] for name in _OURS)
    options = dict(coordinator_address=address, num_processes=int(count), process_id=int(index))
  elif kind != "tpu":
    options = {"cluster_detection_method": kind}
  try:
    jax.distributed.initialize(**options)
  except (RuntimeError, ValueError) as e:
    raise errors.UserError(
      f"the processes of this run did not find each other ({kind}): {e}"
    ) from e


def environment(environ: Mapping[str, str], tpu: bool | None = None) -> str:
  """Who started several processes: "jax", "slurm", "ompi", "tpu", or "" for nobody.

  Args:
    environ: the environment variables.
    tpu: whether this machine has TPU chips and the library for them; None: look.

  Raises:
    UserError: some of JAX's three variables are set, but not all, or not to numbers.
  """
  given = [name for name in _OURS if environ.get(name)]
  if given:
    missing = [name for name in _OURS if name not in given]
    if missing:
      raise errors.UserError(
        f"{given[0]} is set, but not {missing[0]}; several processes need both"
      )
    for name in _OURS[1:]:
      if not environ[name].isdigit():
        raise errors.UserError(f"{name} must be a number, found {environ[name]!r}")
    return "jax" if int(environ["JAX_NUM_PROCESSES"]) > 1 else ""
  # Of the step, not of the job: in a batch script outside `srun` there is one process.
  if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
    return "slurm"
  if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
    return "ompi"
  platforms = environ.get("JAX_PLATFORMS", "")
  if tpu is None and platforms in ("", "tpu"):
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    tpu = bool(chips) and importlib.util.find_spec("libtpu") is not None
  return "tpu" if tpu and platforms in ("", "tpu") else ""


def wait(what: str) -> None:
  """Returns when all processes of the run have come here; `what` names the place."""
  import jax

  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)


def are_several() -> bool:
  """Whether others were joined; unlike the others here, it starts no JAX backend."""
  import jax

  return jax.distributed.is_initialized()


def is_first() -> bool:
  """Whether this process is the one that writes and prints."""
  import jax

  return jax.process_index() == 0


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
  """Yields `stop()`: whether the run is to end here because of a SIGTERM.

  Schedulers send it some time before they kill. Of several processes it may reach one first: they
  agree on one of the next calls, so all have to call it equally often, and only that call
  is true.
  """
  import jax

  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    calls = itertools.count(1)
    # Its own handler was set when joining.
    yield lambda: multihost_utils.reached_preemption_sync_point(next(calls))
    return
  asked = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield lambda: False  # signals cannot be caught here
    return
  before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
  try:
    yield asked.is_set
  finally:
    signal.signal(signal.SIGTERM, before)
