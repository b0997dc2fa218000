"""The mask codec: 64 x 64 masks as 16 codes and back, a VQ-VAE. arXiv:2301.02229 (AiT).

Parameters are a flat dict in the names and layouts of the published file `vae-oid.npz` (PyTorch:
convolutions [out, in, kh, kw], transposed ones [in, out, kh, kw]), so that file is its own
checkpoint. Widths and the number of residual blocks' channels are read from the shapes; only the
graph is fixed. Letters: B masks, E width of a code, C codes in the book, h narrowest width.
"""

import io
import os
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from paligemma_jax import errors

SIDE = 64  # pixels of a mask a side
GRID = 4  # codes a side, row-major
NUM_CODES = 128  # <seg000> ... <seg127>

_DOWN = (0, 2, 4, 6)  # encoder: convolutions of stride 2
_UP = (4, 6, 8, 10)  # decoder: transposed convolutions of stride 2
CODEBOOK = "_vq_vae._embedding"


def param_shapes(
  hidden: int = 16, embedding: int = 512, codes: int = NUM_CODES
) -> dict[str, tuple[int, ...]]:
  """Name and shape of every parameter; the defaults are those of the published file.

  Args:
    hidden: h, channels after the first convolution; they double until 8 h.
    embedding: E, width of a code.
    codes: C, rows of the codebook.
  """
  h, wide = hidden, 8 * hidden
  convs = {"encoder.10": (embedding, wide, 1, 1), "decoder.0": (wide, embedding, 1, 1)}
  for i, (n, m) in zip(_DOWN, [(1, h), (h, 2 * h), (2 * h, 4 * h), (4 * h, wide)]):
    convs[f"encoder.{i}"] = (m, n, 4, 4)
  for block in ("encoder.8", "encoder.9", "decoder.2", "decoder.3"):
    for i, size in ((0, 3), (2, 3), (4, 1)):
      convs[f"{block}.net.{i}"] = (wide, wide, size, size)
  for i, (n, m) in zip(_UP, [(wide, wide), (wide, 4 * h), (4 * h, 2 * h), (2 * h, h)]):
    convs[f"decoder.{i}"] = (n, m, 4, 4)
  convs["decoder.12"] = (1, h, 1, 1)
  shapes = {}
  for name, shape in convs.items():
    is_transposed = name in {f"decoder.{i}" for i in _UP}
    shapes |= {f"{name}.weight": shape, f"{name}.bias": (shape[1 if is_transposed else 0],)}
  return {**shapes, CODEBOOK: (codes, embedding)}


def features(params: dict, masks: Float[Array, "B 64 64"]) -> Float[Array, "B 4 4 E"]:
  """The encoder's output before quantisation; masks are in 0..1, soft values allowed."""
  x = 2.0 * (masks[..., None].astype(jnp.float32) - 0.5)
  for i in _DOWN:
    x = jax.nn.relu(_conv(params, f"encoder.{i}", x, stride=2, pad=1))
  x = _residual(params, "encoder.8", x)
  x = _residual(params, "encoder.9", x)
  return _conv(params, "encoder.10", x)


def nearest(params: dict, x: Float[Array, "B 4 4 E"]) -> Int[Array, "B 16"]:
  """Index of the code at the smallest Euclidean distance from each feature, row-major."""
  book = params[CODEBOOK]
  x = x.reshape(x.shape[0], GRID * GRID, -1)
  dots = jnp.einsum("BNE,CE->BNC", x, book, precision=jax.lax.Precision.HIGHEST)
  square = jnp.sum(x**2, axis=-1, keepdims=True) + jnp.sum(book**2, axis=-1)[None, None]
  return jnp.argmin(square - 2.0 * dots, axis=-1).astype(jnp.int32)


def encode(params: dict, masks: Float[Array, "B 64 64"]) -> Int[Array, "B 16"]:
  """Codes 0..C-1, row-major, of masks with values in 0..1 (soft ones are kept soft)."""
  return nearest(params, features(params, masks))


def reconstruct(params: dict, x: Float[Array, "B 4 4 E"]) -> Float[Array, "B 64 64"]:
  """The decoder on rows of the codebook: about -1..1, above 0 is inside."""
  x = jax.nn.relu(_conv(params, "decoder.0", x))
  x = _residual(params, "decoder.2", x)
  x = _residual(params, "decoder.3", x)
  for i in _UP:
    x = jax.nn.relu(_transposed_conv(params, f"decoder.{i}", x))
  return _conv(params, "decoder.12", x)[..., 0]


def decode(params: dict, codes: Int[Array, "B 16"]) -> Float[Array, "B 64 64"]:
  """Masks from codes: about -1..1, above 0 is inside."""
  rows = jnp.asarray(params[CODEBOOK])[codes]
  return reconstruct(params, rows.reshape(rows.shape[0], GRID, GRID, -1))


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads `vae-oid.npz` or a file of `paligemma codec train`; names of no use here are ignored.

  Returns:
    flat dict, name -> float32 array.

  Raises:
    errors.UserError: no readable npz, or a tensor is missing, misshaped or not finite.
  """
  try:
    data = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise errors.UserError(
      f"{path}: no such file. Give vae-oid.npz, or make one with `paligemma codec train`"
    ) from None
  except OSError as e:
    raise errors.UserError(f"{path}: cannot be read ({e.strerror})") from None
  return from_bytes(data, str(path))


def from_bytes(data: bytes, where: str) -> dict[str, np.ndarray]:
  """As `load`, from the bytes of such a file; `where` is its name in messages."""
  try:
    with np.load(io.BytesIO(data)) as f:
      raw = {name: f[name] for name in f.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
    raise errors.UserError(f"{where}: no readable npz ({e}); copy it again") from None
  return check(raw, where)


def to_bytes(params: dict) -> bytes:
  """The npz of a codec, the same bytes for the same numbers; `from_bytes` is the inverse."""
  buffer = io.BytesIO()
  np.savez(buffer, **{name: np.asarray(x, np.float32) for name, x in params.items()})
  return buffer.getvalue()


def check(raw: dict[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
  """Returns what of `raw` belongs to a codec, as float32; raises UserError as `load` does."""
  missing = [name for name in param_shapes() if name not in raw]
  if missing:
    raise errors.UserError(
      f"{path}: no mask codec: {len(missing)} tensors are missing, the first is {missing[0]}"
      f" (found: {', '.join(list(raw)[:4]) or 'nothing'})"
    )
  book, first = raw[CODEBOOK], raw["encoder.0.weight"]
  if book.ndim != 2 or first.ndim != 4:
    raise errors.UserError(
      f"{path}: {CODEBOOK} has shape {list(book.shape)} and encoder.0.weight"
      f" {list(first.shape)}; wanted two axes and four"
    )
  params = {}
  for name, shape in param_shapes(first.shape[0], book.shape[1], book.shape[0]).items():
    x = np.asarray(raw[name])
    if x.shape != shape:
      raise errors.UserError(f"{path}: {name} has shape {list(x.shape)}, wanted {list(shape)}")
    if x.dtype.kind != "f" or not np.isfinite(x).all():
      raise errors.UserError(f"{path}: {name} holds values that are no finite numbers ({x.dtype})")
    params[name] = x.astype(np.float32)
  return params


def _conv(params, name, x, stride=1, pad=0):
  kernel, bias = params[f"{name}.weight"], params[f"{name}.bias"]
  x = jax.lax.conv_general_dilated(
    x, jnp.asarray(kernel), (stride, stride), [(pad, pad)] * 2,
    dimension_numbers=("NHWC", "OIHW", "NHWC"), precision=jax.lax.Precision.HIGHEST,
  )  # fmt: skip
  return x + bias[None, None, None]


def _transposed_conv(params, name, x):
  """PyTorch's ConvTranspose2d(kernel 4, stride 2, padding 1): twice the size.

  Output pixel 2 m + a of a row sees the inputs m + a - 1 and m + a through the taps 3 - a and
  1 - a; likewise for columns. So each of the four phases is a product with a matrix, whose
  gradient is some ten times faster on a CPU than that of a dilated convolution.
  """
  kernel = jnp.asarray(params[f"{name}.weight"])  # [in, out, 4, 4]
  B, H, W, _ = x.shape
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows = []
  for a in (0, 1):
    for b in (0, 1):
      seen = [x[:, a + u : a + u + H, b + v : b + v + W] for u in (0, 1) for v in (0, 1)]
      taps = [kernel[:, :, 3 - a - 2 * u, 3 - b - 2 * v] for u in (0, 1) for v in (0, 1)]
      seen, taps = jnp.concatenate(seen, axis=-1), jnp.concatenate(taps, axis=0)
      rows.append(jnp.einsum("BHWI,IO->BHWO", seen, taps, precision=jax.lax.Precision.HIGHEST))
  y = jnp.stack(rows, axis=3).reshape(B, H, W, 2, 2, -1)
  y = y.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2 * H, 2 * W, -1)
  return y + params[f"{name}.bias"][None, None, None]


def _residual(params, name, x):
  h = jax.nn.relu(_conv(params, f"{name}.net.0", x, pad=1))
  h = jax.nn.relu(_conv(params, f"{name}.net.2", h, pad=1))
  return x + _conv(params, f"{name}.net.4", h)
