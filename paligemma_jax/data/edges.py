"""Where the boxes of a source begin and end, which tells from where its tool counted pixels.

Ours count from 0 and end outside: the whole picture is [0, 0, W, H]. Formats and the tools that write
them disagree (of VOC, supervision counts from 1 and datumaro from 0), and boxes that are off by one
look right. Boxes at the edge of their pictures give it away.
"""

from collections.abc import Iterable

_FEW = 3  # boxes that could lie so by chance (chosen)


class Edges:
  """Counts the boxes of a source at the edges of their pictures."""

  def __init__(self):
    self._at = {"0": 0, "1": 0, "end": 0, "end - 1": 0}
    self._boxes, self._largest = 0, 0.0

  def add(self, objects: Iterable[dict], height: int, width: int) -> None:
    """Looks at the boxes of a picture, [x0, y0, x1, y1] in pixels."""
    for x0, y0, x1, y1 in (o["box"] for o in objects):
      self._boxes, self._largest = self._boxes + 1, max(self._largest, x1, y1)
      self._at["0"] += 0 in (x0, y0)
      self._at["1"] += 1 in (x0, y0)
      self._at["end"] += x1 == width or y1 == height
      self._at["end - 1"] += x1 == width - 1 or y1 == height - 1

  def finding(self) -> str:
    """What is odd about them all; "" if nothing is."""
    at = self._at
    if self._boxes >= _FEW and self._largest <= 1:
      return (
        f"all {self._boxes} boxes lie between 0 and 1: they may be fractions of the picture; boxes"
        " of a JSONL are pixels"
      )
    if at["1"] >= _FEW and not at["0"]:
      return (
        f"no box begins at 0, {at['1']} begin at 1: their tool may have counted from 1, as VOC does;"
        " boxes of a JSONL count from 0"
      )
    if at["end - 1"] >= _FEW and not at["end"] and at["0"]:
      return (
        f"{at['0']} boxes begin at 0, {at['end - 1']} end a pixel before the edge and none at it:"
        " their tool may have written the last pixel inside; boxes of a JSONL end outside"
      )
    return ""
