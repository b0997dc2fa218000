"""What the sets of videos share: where a video's frames are and how they are stored.

A record holds all frames of its clip, so questions about one video repeat them. Extract as few
frames a second as the training shall see, with `stride` of the config in proportion.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile

from paligemma_jax import errors
from paligemma_jax.datasets import pictures, raw

_ENDINGS = (".mp4", ".mkv", ".webm", ".avi")
LAYOUT = "video/{name}/00001.jpg    its frames; or video/{name}.mp4, which ffmpeg takes apart"


def features(f, **texts) -> dict:
  """The frames, the name of the video, and the features of the keyword arguments."""
  frames = f.Sequence(f.Image(encoding_format="jpeg"))
  return {"frames": frames, "example/video_id": f.Text(), **texts}


def clip(folder: raw.Folder, name: str, start: float = 0.0, end: float = 1.0, seconds: float = 0.0):
  """The frames of a video, to be read when they are written.

  Args:
    folder: the official files.
    name: of the video, without ending.
    start, end: the part of it, 0..1.
    seconds: its length, where only a part is wanted.
  """
  path = folder.root / "video" / name
  if not path.is_dir():
    for ending in _ENDINGS:
      if path.with_name(name + ending).is_file():
        times = (start * seconds, end * seconds) if seconds else None
        return Film(str(path.with_name(name + ending)), folder.place, times)
  count = len(os.listdir(path)) if path.is_dir() else 0
  first = min(int(start * count), max(count - 1, 0))
  return folder.frames(f"video/{name}", first, max(round(end * count), first + 1))


@dataclasses.dataclass(frozen=True)
class Film:
  """A video file, or a part of it.

  Attributes:
    path: of the file.
    place: what names it.
    seconds: (start, end) of the part; None: all of it.
  """

  path: str
  place: str
  seconds: tuple[float, float] | None

  def probe(self) -> int:
    """Size of its frames in bytes; takes them all out, since damage can be anywhere.

    Raises:
      pictures.BadPicture: it cannot be read.
      errors.UserError: ffmpeg is missing.
    """
    if shutil.which("ffmpeg") is None:
      raise errors.UserError(
        f"{self.path}: ffmpeg, which takes videos apart, is not installed; extract the frames to"
        f" {os.path.splitext(self.path)[0]}/00001.jpg, …"
      )
    return sum(map(len, self.read()))

  def read(self) -> list[bytes]:
    """All frames as JPEG."""
    part = []
    if self.seconds:
      part = ["-ss", str(self.seconds[0]), "-to", str(self.seconds[1])]
    with tempfile.TemporaryDirectory() as out:
      command = ["ffmpeg", "-v", "error", *part, "-i", self.path, "-q:v", "2", f"{out}/%06d.jpg"]
      found = subprocess.run(command, capture_output=True, text=True)
      frames = [path.read_bytes() for path in sorted(pathlib.Path(out).iterdir())]
    if found.returncode or not frames or "partial file" in found.stderr:  # cut off, some read
      words = " ".join(found.stderr.split())[:200]
      raise pictures.BadPicture(f"{self.place}: {self.path} cannot be read ({words})")
    return frames
