"""What `paligemma bench` measures: every task as cases, each with its peers and the machine's limit.

A report is plain data, made for JSON:

    {"task", "size", "machine": what `machine.describe` says, "limits": {"flops", "bytes" a second},
     "failed": {contender: why}, "cases": [case, …]}
    case: {"case": words, "unit": what one time is of, "work": {"flops"} or {"bytes"} of it,
           "contenders": {"ours" | "eager" | …: {"median", "lowest", "highest": seconds,
                          "of_limit": share of the machine's limit, "peak", "own": bytes of the
                          host's memory, with and without the libraries}},
           "ratio": how many times as fast as the faster peer, median over the rounds,
           "own_ratio": the same of ours in floats, or of all parameters, where that was compared}
"""

import math
import pathlib
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.bench import contest, machine, sizes
from paligemma_jax.models import flops, tree, variants
from paligemma_jax.train import adapters, recipes
from paligemma_jax.transfers import common

PEERS = ("eager", "compiled")  # transformers, as it is and by torch.compile; adapters by peft
Say = Callable[[str], None]


def train(size: str, say: Say, recipe: str = "full") -> dict[str, Any]:
  """A step: float32 on a CPU, Adam, clipping, no remat; batch 1 and 8.

  Another recipe, "lora" or "qlora", is compared with "ours full" as well.
  """
  config = sizes.SIZES[size]
  _need(4 * sizes.num_bytes(config), f"bench train --size {size}")  # weights, gradients, moments
  report = _report("train", size)
  also = {} if recipe == "full" else {"ours full": "full"}
  with tempfile.TemporaryDirectory() as folder:
    path = _written(config, folder, say)
    for batch_size in sizes.BATCHES:
      say(f"train, batch {batch_size}: building and compiling …")
      work = flops.train_step(
        config,
        batch_size=batch_size,
        text_len=sizes.TEXT,
        supervised=sizes.SUPERVISED,
        remat="none",
        **_adapted(config, recipe),
      ).model
      whos = {"ours": recipe} | also | dict.fromkeys(PEERS, recipe)
      whos = {who: [path, batch_size, r] for who, r in whos.items()}
      found = _compete(report, "train", whos, ["train"], say, memory="train")
      times = {who: jobs["train"] for who, jobs in found.items()}
      case = _case(f"step, batch {batch_size}", "step", times, {"flops": work}, report)
      report["cases"].append(case)
  return report


def generate(size: str, say: Say, quant: str | None = None) -> dict[str, Any]:
  """Prefill of a picture and 16 tokens, then greedy tokens one by one; batch 1 and 8.

  Weights in few bits, a form as `vlm.load` takes it, are compared with "ours float" as well.
  """
  config = sizes.SIZES[size]
  if quant is not None:
    tree.parse_quant(quant, config)  # a mistake is told before anything is made
  _need(2 * sizes.num_bytes(config), f"bench generate --size {size}")
  report = _report("generate", size)
  also = {} if quant is None else {"ours float": None}
  jobs = ["1", *map(str, sizes.NEW_TOKENS)]
  with tempfile.TemporaryDirectory() as folder:
    path = _written(config, folder, say)
    for batch_size in sizes.BATCHES:
      say(f"generate, batch {batch_size}: building and compiling …")
      whos = {"ours": quant} | also | dict.fromkeys(PEERS)
      whos = {who: [path, batch_size, q] for who, q in whos.items()}
      found = _compete(report, "generate", whos, jobs, say, memory=jobs[-1])
      work = flops.prefill(config, batch_size=batch_size, text_len=sizes.PROMPT)
      times = {who: taken["1"] for who, taken in found.items()}
      words = f"prefill, batch {batch_size}"
      report["cases"].append(_case(words, "batch", times, {"flops": work}, report))
      for n in sizes.NEW_TOKENS:
        work = token_bytes(config, batch_size, sizes.PROMPT, n, quant)
        each = {who: _each(taken, n) for who, taken in found.items()}
        words = f"token, batch {batch_size}, {n} tokens"
        report["cases"].append(_case(words, "token of each row", each, {"bytes": work}, report))
  return report


def load(size: str, say: Say) -> dict[str, Any]:
  """From a file that the system has read before to a model in memory; npz and Hub folder."""
  config = sizes.SIZES[size]
  _need(2 * sizes.num_bytes(config), f"bench load --size {size}")
  report = _report("load", size)
  with tempfile.TemporaryDirectory() as folder:
    for name in ("hub", "model.npz"):
      path = _written(config, folder, say, name)
      whos = {who: [path] for who in ("ours", *(PEERS[:1] if name == "hub" else ()))}
      found = _compete(report, "load", whos, ["load"], say, memory="load")
      times = {who: jobs["load"] for who, jobs in found.items()}
      work = {"bytes": sizes.num_bytes(config)}
      report["cases"].append(_case(f"load {name}", "model", times, work, report))
  return report


def convert(size: str, say: Say) -> dict[str, Any]:
  """npz to Hub folder, back, and a Hub folder to bfloat16, which transformers can do as well."""
  config = sizes.SIZES[size]
  report = _report("convert", size)
  with tempfile.TemporaryDirectory() as folder:
    paths = {name: _written(config, folder, say, name) for name in ("hub", "model.npz")}
    for source, to, dtype in (
      ("model.npz", "to", None),
      ("hub", "to.npz", None),
      ("hub", "to", "bfloat16"),
    ):
      words = f"{source} to {'npz' if to.endswith('.npz') else 'hub'}" + (
        f", {dtype}" if dtype else ""
      )
      args = [paths[source], f"{folder}/{{}}-{to}", dtype]
      whos = {who: args for who in ("ours", *(PEERS[:1] if dtype else ()))}
      found = _compete(report, "convert", whos, ["convert"], say, memory="convert")
      times = {who: jobs["convert"] for who, jobs in found.items()}
      work = {"bytes": sizes.num_bytes(config) + sizes.num_bytes(config, dtype or "float32")}
      report["cases"].append(_case(words, "model", times, work, report))
  return report


TASKS = {"train": train, "generate": generate, "load": load, "convert": convert}


def token_bytes(
  config: variants.ModelConfig, batch_size: int, text_len: int, new: int, quant: str | None = None
) -> int:
  """Bytes that one step of decoding has to read: the decoder's weights and the cache, in float32 but for
  weights in few bits.
  """
  c, form = config.llm, tree.Form(tree.parse_quant(quant, config) if quant else {})
  leaves = {n: x for n, x in tree.formed(config, form).items() if n.startswith("llm/")}
  weights = sum(
    math.prod(x.shape) * np.dtype(x.dtype or "float32").itemsize for x in leaves.values()
  )
  columns = config.img.num_tokens + text_len + new
  return weights + 4 * batch_size * columns * 2 * c.depth * c.num_kv_heads * c.head_dim


def _adapted(config: variants.ModelConfig, recipe: str) -> dict[str, Any]:
  """What `flops.train_step` has to know of the recipe."""
  if recipe == "full":
    return {}
  found = adapters.layout(common.lora(), config).adapters(config)
  names = tree.formed(config, tree.Form({}, found))
  return {"adapters": found, "trained": [n for n in names if recipes.is_adapter(n)]}


def _each(taken: Mapping[str, Sequence[float]], n: int) -> list[float]:
  """Seconds of one step of decoding, round by round: what comes after the first token."""
  return [
    max(whole - first, 1e-9) / (n - 1)
    for whole, first in zip(taken[str(n)], taken["1"], strict=True)
  ]


def _report(task: str, size: str) -> dict[str, Any]:
  return {
    "task": task,
    "size": size,
    "machine": machine.describe(),
    "limits": {},
    "failed": {},
    "cases": [],
    "memory": {},
  }


def _compete(
  report: dict[str, Any],
  task: str,
  whos: Mapping[str, Sequence[Any]],
  jobs: Sequence[str],
  say: Say,
  *,
  memory: str,
) -> dict[str, dict[str, list[float]]]:
  """contender -> job -> seconds by round; notes limits, memory and failures in the report."""
  found: dict[str, dict[str, list[float]]] = {}
  report["memory"] = {}
  groups = [whos]
  if len(whos) > machine.free_memory() / (2 * sizes.num_bytes(sizes.SIZES[report["size"]])):
    groups = [{who: args} for who, args in whos.items()]  # too large to lie in memory side by side
    say("not enough memory for all at once: one after the other")
  for group in groups:
    with (
      contest.opened(group, task) as (ready, failed),
      contest.opened({"machine": []}, "limits") as (limits, _),
    ):
      report["failed"] |= failed
      for who, why in failed.items():
        say(f"{who}: {why}")
      everyone = ready | limits
      say("measuring " + ", ".join(f"{who} ({c.name})" for who, c in ready.items()) + " …")
      taken = contest.race(everyone, [*jobs, "matmul", "read"])
      for who in ready:
        report["memory"][who] = ready[who].peak(memory)
      of_limits = {job: statistics.median(times) for job, times in taken.pop("machine").items()}
      rates = machine.rates(of_limits)
      report["limits"] = {k: max(v, report["limits"].get(k, 0)) for k, v in rates.items()}
      found |= taken
  return found


def _case(
  words: str, unit: str, times: dict[str, list[float]], work: dict[str, int], report: dict
) -> dict[str, Any]:
  (kind, amount), contenders = next(iter(work.items())), {}
  for who, seconds in times.items():
    spread = contest.spread(seconds)
    share = amount / spread["median"] / report["limits"][kind]
    peak = report["memory"][who]
    contenders[who] = spread | {"of_limit": share, "peak": peak["bytes"], "own": peak["own"]}
  case = {"case": words, "unit": unit, "work": work, "contenders": contenders}
  own = [who for who in times if who.startswith("ours ")]
  for key, others in (("ratio", [who for who in PEERS if who in times]), ("own_ratio", own)):
    if "ours" in times and others:
      best = min(others, key=lambda who: contenders[who]["median"])
      ratios = [theirs / ours for theirs, ours in zip(times[best], times["ours"], strict=True)]
      case[key] = statistics.median(ratios)
  return case


def table(report: dict[str, Any]) -> list[tuple[str, ...]]:
  """Rows of words, the head first: every case with the times of all, ratio, limit and memory."""
  whos = list(dict.fromkeys(who for case in report["cases"] for who in case["contenders"]))
  limit = "of the limit"
  own = [f"x {who}" for who in whos if who.startswith("ours ")]
  rows = [("", *whos, "x the faster peer", *own, limit, *(f"own memory, {who}" for who in whos))]
  for case in report["cases"]:
    found = case["contenders"]
    ours = found.get("ours")
    rows.append(
      (
        case["case"],
        *(_time(found[who]) if who in found else "" for who in whos),
        *(
          f"{case[key]:.2f}" if key in case else ""
          for key in ("ratio", "own_ratio")[: 1 + len(own)]
        ),
        f"{ours['of_limit']:.0%}" if ours else "",
        *(f"{found[who]['own'] / 2**20:,.0f} MiB" if who in found else "" for who in whos),
      )
    )
  return rows


def _time(spread: Mapping[str, float]) -> str:
  """`812 ms (790-850)`."""
  scale, unit = (1, "s") if spread["median"] >= 10 else (1e3, "ms")
  low, mid, high = (spread[key] * scale for key in ("lowest", "median", "highest"))
  digits = 0 if mid >= 100 else 1 if mid >= 10 else 2
  return f"{mid:.{digits}f} {unit} ({low:.{digits}f}-{high:.{digits}f})"


def _written(config: variants.ModelConfig, folder: str, say: Say, name: str = "hub") -> str:
  """Path of a checkpoint of random weights, made in `folder`."""
  need, free = sizes.num_bytes(config), shutil.disk_usage(folder).free
  if need > free:
    raise errors.UserError(
      f"{folder}: {need / 1e9:.1f} GB of random weights, {free / 1e9:.1f} GB are free;"
      " set $TMPDIR to a larger disk"
    )
  path = pathlib.Path(folder) / name
  if not path.exists():
    say(f"writing random weights, {need / 1e9:.1f} GB …")
    sizes.write(config, path)
  return str(path)


def _need(num_bytes: int, what: str) -> None:
  free = machine.free_memory()
  if num_bytes > free:
    raise errors.UserError(
      f"{what} needs {num_bytes / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free;"
      " take a smaller --size"
    )
