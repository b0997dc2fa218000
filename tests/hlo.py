"""What a compiled program keeps in memory, read off its HLO text."""

import math
import re

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_FUSED = re.compile(r"\bfusion\(.*\bcalls=%?([\w.-]+)")
_FLOATS = re.compile(r"\b((?:f|bf)\d+\w*)\[([0-9,]*)\]")


def float_shapes(text: str, least: int) -> set[str]:
  """Shapes, as "f32[8,4]", of all arrays of floats in memory with `least` elements or more.

  What is computed inside of a fusion is not in memory; its operands and its result are.

  Args:
    text: `compiled.as_text()`.
    least: elements, on one device.
  """
  fused = set(_FUSED.findall(text))
  found, name = set(), None
  for line in text.splitlines():
    if head := _HEAD.match(line):
      name = head[1]
    elif " = " in line and name not in fused:
      shape = line.split(" = ")[1].split("metadata=")[0]
      found |= {
        f"{dtype}[{dims}]" for dtype, dims in _FLOATS.findall(shape) if _size(dims) >= least
      }
  return found


def _size(dims: str) -> int:
  return math.prod(int(n) for n in dims.split(",") if n)
