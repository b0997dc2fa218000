"""What a checkpoint is: variant, resolution, dtype, settings, assets, every parameter and its size.

Reads headers only, so a file of 12 GB takes as long as a small one. CKPT is an npz, a Hugging Face
folder or Hub id, an Orbax checkpoint, or a workdir (its newest complete checkpoint). Of quantised
weights it tells the form (nf4-dq: 4 bits, scales in 8) and the bytes of codes and scales.

  paligemma inspect runs/seed0 runs/seed1 runs/seed2

Several workdirs are compared: a row for each, with what differs between their configs, last step,
last training loss, newest scores and examples per second; and mean ± standard deviation of those
that differ in `seed` alone.
"""

import argparse
import collections
import math

from paligemma_jax.cli import runtime
from paligemma_jax.models import tree, variants
from paligemma_jax.processing import added_tokens, hub_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  parser.add_argument("ckpt", metavar="CKPT", nargs="+")


def run(args: argparse.Namespace) -> None:
  """Prints the tables."""
  if len(args.ckpt) > 1:
    _compare(args.ckpt)
    return
  from paligemma_jax.checkpoint import formats

  source = formats.open(args.ckpt[0])
  print(runtime.table(_summary(source)))
  print()
  print(runtime.table(_parameters(source), right=(2, 3, 4)))


def _compare(workdirs: list[str]) -> None:
  """Prints the table of several runs."""
  from paligemma_jax.train import table

  rows = table.rows([table.read(workdir) for workdir in workdirs])
  print(runtime.table(rows, right=range(1, len(rows[0]))))


def _summary(source) -> list[tuple[str, str]]:
  """What stands above the table of parameters."""
  config, count = source.config, _count(source.shapes)
  rows = [("checkpoint", str(source.path)), ("format", source.format)]
  if config is not None:
    rows.append(("variant", config.name))
    rows.append(("resolution", f"{config.img.res} px, {config.img.num_tokens} image tokens"))
  else:
    rows.append(
      ("variant", "a part: " + ", ".join(sorted({n.split("/")[0] for n in source.shapes})))
    )
  rows.append(("dtype", ", ".join(_dtypes(source))))
  rows.append(("parameters", f"{count:,} ({runtime.size(_bytes(source))})"))
  if config is not None:
    rows += [(name, _setting(getattr(config.llm, name))) for name in variants.SETTINGS]
  if source.adapter is not None:
    adapter = source.adapter
    rows.append(("base", source.base_path))
    numbers = f"{len(adapter.lora.modules)} modules, {adapter.trained:,} numbers"
    ranks = sorted({size.rank for size in adapter.lora.modules.values()})
    rows.append(("adapter", f"{numbers}, rank {', '.join(map(str, ranks))}"))
    rows.append(("weights beside it", source.quant or "as stored"))
  if "step" in source.meta:
    rows.append(("step", str(source.meta["step"])))
  rows += _preprocessing(source) + _added_tokens(source)
  files = [f"{name} ({runtime.size(len(data))})" for name, data in sorted(source.assets.items())]
  rows.append(("assets", ", ".join(files) or "none: give --tokenizer where one is needed"))
  return rows


def _dtypes(source) -> list[str]:
  """Names of the dtypes, the one with most values first."""
  counts = collections.Counter()
  for name, shape in source.shapes.items():
    counts[_dtype(source, name)] += math.prod(shape)
  return [name for name, _ in counts.most_common()]


def _dtype(source, name: str) -> str:
  """What a parameter is stored as: a dtype, or the form of a quantised one."""
  weight = source.quantised.get(name)
  return weight.quant.spelled if weight else str(source.dtypes[name])


def _setting(value) -> str:
  return "off" if value in (0, 0.0) else str(value)


def _preprocessing(source) -> list[tuple[str, str]]:
  """How pictures and prompts are prepared, as recorded beside the weights."""
  if not {hub_files.PREPROCESSOR, hub_files.PROCESSOR} & set(source.assets):
    return []
  found = hub_files.read_preprocessing(source.assets, source.path)
  rows = [("resize", found.resize), ("alpha", found.alpha), ("text_len", found.text_len)]
  return [(name, str(value)) for name, value in rows if value]


def _added_tokens(source) -> list[tuple[str, str]]:
  """The tokens behind `<image>`, if there are any."""
  found = added_tokens.behind(added_tokens.read(source.assets, source.path))
  names = [token.content for token in found]
  more = f", … ({len(names)} in all)" if len(names) > 5 else ""
  return [("added tokens", ", ".join(names[:5]) + more)] if names else []


def _count(shapes) -> int:
  return sum(math.prod(shape) for shape in shapes.values())


def _bytes(source) -> int:
  return sum(_size(source, name) for name in source.shapes)


def _size(source, name: str) -> int:
  """Bytes of a parameter as it is stored."""
  return (source.quantised.get(name) or source.arrays[name]).nbytes


def _parameters(source) -> list[tuple[str, ...]]:
  """One row for each tensor in the published order, sums for the two halves."""
  shapes = source.shapes
  order = list(tree.param_shapes(source.config)) if source.config else sorted(shapes)
  order = [n for n in order if n in shapes] + [n for n in shapes if n not in order]
  rows = [("name", "dtype", "shape", "parameters", "size")]
  for half in dict.fromkeys(name.split("/")[0] for name in order):
    count = num_bytes = 0
    for name in (n for n in order if n.split("/")[0] == half):
      n = math.prod(shapes[name])
      text, size = " x ".join(map(str, shapes[name])) or "scalar", _size(source, name)
      rows.append((name, _dtype(source, name), text, f"{n:,}", runtime.size(size)))
      count, num_bytes = count + n, num_bytes + size
    rows.append((f"{half} (all)", "", "", f"{count:,}", runtime.size(num_bytes)))
  return rows
