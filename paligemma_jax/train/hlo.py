"""What devices send to each other in a compiled program, read off its HLO text."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Times the buffer (per device, the larger of what goes in and what comes out) that one device sends
# in a ring of g devices.
_SENT = {
  "all-gather": lambda g: (g - 1) / g,
  "reduce-scatter": lambda g: (g - 1) / g,
  "all-reduce": lambda g: 2 * (g - 1) / g,
  "all-to-all": lambda g: (g - 1) / g,
  "ragged-all-to-all": lambda g: (g - 1) / g,
  "collective-broadcast": lambda g: 1.0,
  "collective-permute": lambda g: 1.0,
}
_BITS = {"pred": 8, "token": 0}  # others have them in their name: bf16, s4, f8e4m3fn
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_SHAPE = re.compile(r"\b([a-z]+[0-9]*\w*)\[([0-9,]*)\]")
_CALLED = re.compile(
  r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


class Collective(NamedTuple):
  """All collectives of one kind in a program."""

  kind: str  # as HLO calls it, "all-gather"
  count: int  # in one run of the program, each as often as the loops around it turn
  num_bytes: float  # that one device sends, in a ring
  is_exact: bool  # False: a loop around one of them has a length that cannot be read


class _Instruction(NamedTuple):
  name: str
  shape: str
  op: str
  rest: str  # operands and attributes


def collectives(text: str, num_devices: int, unknown: int = 1) -> list[Collective]:
  """The collectives of a compiled program by kind, the kind that sends most first.

  A pair of start and done is one, and so are the parts of a chain that the TPU compiler fuses with
  arithmetic (they have one channel). The body of a loop counts as often as the loop turns: by the
  compiler's own note, else by the constant in its condition.

  Args:
    text: `compiled.as_text()`.
    num_devices: of the program; the size of a group that lists none.
    unknown: turns of a loop whose length cannot be read.
  """
  computations, entry = _parse(text)
  times, is_exact = _multiplicities(computations, entry, unknown)
  found: dict[str, list] = {}
  seen = set()
  for name, instructions in computations.items():
    for i in instructions if name in times else ():
      kind = i.op.removesuffix("-start")
      channel = re.search(r"\bchannel_id=(\d+)", i.rest)
      key = (kind, channel[1]) if channel else (kind, name, i.name)
      if kind not in _SENT or key in seen:
        continue
      seen.add(key)
      group = _group_size(i.rest, num_devices)
      each = _SENT[kind](group) * _buffer(i, kind, group)
      total = found.setdefault(kind, [0, 0.0, True])
      total[0] += times[name]
      total[1] += times[name] * each
      total[2] &= is_exact[name]
  return sorted((Collective(k, *v) for k, v in found.items()), key=lambda c: -c.num_bytes)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  """(computation -> its instructions, name of the entry)."""
  computations: dict[str, list[_Instruction]] = {}
  entry, current = "", []
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head:
      current = computations.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
      continue
    match = _INSTRUCTION.match(line)
    if match:
      shape, _, rest = _split_shape(match[2])
      op, _, rest = rest.partition("(")
      current.append(_Instruction(match[1], shape, op, rest))
  return computations, entry


def _split_shape(text: str) -> tuple[str, str, str]:
  """`(f32[2], s32[]) while(…)` -> the shape, which may be a tuple, and what follows it."""
  if not text.startswith("("):
    return text.partition(" ")
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return text[: i + 1], "", text[i + 1 :].lstrip()
  return text, "", ""


def _multiplicities(computations, entry, unknown) -> tuple[dict[str, int], dict[str, bool]]:
  """How often every computation runs, and whether that is known."""
  times, is_exact = {entry: 1}, {entry: True}
  order = [entry]
  for name in order:  # grows
    for i in computations.get(name, ()):
      trips = _trip_count(i, computations) if i.op == "while" else 1
      for called in _called(i):
        if called not in times:
          order.append(called)
        times[called] = max(times.get(called, 0), times[name] * (trips or unknown))
        is_exact[called] = is_exact[name] and trips is not None
  return times, is_exact


def _called(i: _Instruction) -> Iterator[str]:
  for match in _CALLED.finditer(i.rest):
    yield match[1]
  for match in _BRANCHES.finditer(i.rest):
    for name in match[1].split(","):
      yield name.strip().lstrip("%")


def _trip_count(loop: _Instruction, computations) -> int | None:
  """How often a while loop turns, None where it cannot be told.

  Without a note of the compiler, a loop is taken to count from 0 in steps of 1 up to the only
  integer constant of its condition, which is how a scan is lowered.
  """
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
  if known:
    return int(known[1])
  condition = re.search(r"\bcondition=%?([\w.-]+)", loop.rest)
  instructions = computations.get(condition[1], ()) if condition else ()
  limits = [
    int(i.rest.split(")")[0])
    for i in instructions
    if i.op == "constant" and re.match(r"[su]\d+\[\]", i.shape) and i.rest[:1].isdigit()
  ]
  return limits[0] if len(limits) == 1 else None


def _group_size(rest: str, num_devices: int) -> int:
  """Devices that take part in one instance of a collective."""
  mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest)
  if mesh:  # mesh['a'=4,'b'=2] {'a'}
    sizes = dict(re.findall(r"'([^']*)'=(\d+)", mesh[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']*)'", mesh[2]))
  iota = re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest)
  if iota:  # [groups,size]<=[devices]
    return int(iota[1])
  listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
  return listed[1].count(",") + 1 if listed else num_devices


def _buffer(i: _Instruction, kind: str, group: int) -> float:
  """Bytes per device of the larger side, without the control words of a start."""
  sizes = [_num_bytes(*m) for m in _SHAPE.findall(i.shape)]
  if kind == "reduce-scatter":
    return group * sum(sizes)
  if kind == "collective-permute":
    return max(sizes)
  if kind == "all-gather" and i.op.endswith("-start"):
    return sum(sizes[len(sizes) // 2 :])  # (what goes in, what comes out)
  return sum(sizes)


def _num_bytes(dtype: str, dims: str) -> float:
  bits = _BITS[dtype] if dtype in _BITS else int(re.search(r"\d+", dtype)[0])
  return math.prod(int(d) for d in dims.split(",") if d) * bits / 8


def total_bytes(found: Iterable[Collective]) -> float:
  """What one device sends in all of them."""
  return sum(c.num_bytes for c in found)
