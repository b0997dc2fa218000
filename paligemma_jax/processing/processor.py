"""The one door between the world and tensors: pictures and strings -> Batch, tokens -> strings."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from paligemma_jax import errors, structs
from paligemma_jax.processing import added_tokens, hub_files, image, prompt
from paligemma_jax.processing import tokenizer as tokenizer_lib

ENVIRONMENT = "PALIGEMMA_TOKENIZER"
_PATCH = 14  # pixels, of every published image tower


@dataclasses.dataclass(frozen=True)
class Processor:
  """Makes what the model reads, in numpy. Immutable and picklable; never touches JAX."""

  tokenizer: tokenizer_lib.Tokenizer | None  # None: not found, an error only when it is needed
  res: int  # pixels a side
  num_image_tokens: int  # of one picture
  resize: str = "bilinear_antialias"  # a name in `image.METHODS`
  text_len: int | None = None  # tokens; None: the next of `prompt.LENGTHS`
  alpha: str = "drop"  # a name in `image.ALPHAS`
  looked_at: tuple[str, ...] = ()  # where a missing tokenizer was looked for

  def __post_init__(self):
    if self.resize not in image.METHODS:
      raise errors.UserError(
        f'resize "{self.resize}" is unknown{errors.did_you_mean(self.resize, image.METHODS)}'
      )
    if self.alpha not in image.ALPHAS:
      raise errors.UserError(
        f'alpha "{self.alpha}" is unknown{errors.did_you_mean(self.alpha, image.ALPHAS)}'
      )

  @classmethod
  def from_files(
    cls,
    files: dict[str, bytes],
    *,
    res: int | None = None,
    num_image_tokens: int | None = None,
    resize: str | None = None,
    text_len: int | None = None,
    alpha: str | None = None,
    tokenizer: tokenizer_lib.Tokenizer | str | os.PathLike | None = None,
    place: str = "",
  ) -> "Processor":
    """Builds the processor that a checkpoint's files describe; the inverse of `to_files`.

    Args:
      files: name -> content, as found in or beside the checkpoint; may be empty.
      res, num_image_tokens, resize, text_len, alpha: win over what the files say. Where neither
        says it: (res / 14)^2 tokens, "bilinear_antialias", no fixed text_len, "drop".
      tokenizer: one, or a file or directory to read it from; else from `files`, else from
        $PALIGEMMA_TOKENIZER.
      place: where the files are from, for errors.

    Raises:
      errors.UserError: a file is damaged; `tokenizer` names none; nothing says the resolution.
    """
    found = hub_files.read_preprocessing(files, place)
    res = res or found.res
    if res is None:
      raise errors.UserError(f"{place or 'processor'}: no {hub_files.PREPROCESSOR}; give res")
    if num_image_tokens is None:
      same = found.num_image_tokens is not None and found.res == res
      num_image_tokens = found.num_image_tokens if same else (res // _PATCH) ** 2
    tokenizer, looked_at = _find_tokenizer(files, tokenizer, place)
    return cls(
      tokenizer=tokenizer,
      res=res,
      num_image_tokens=num_image_tokens,
      resize=resize or found.resize or "bilinear_antialias",
      text_len=text_len or found.text_len,
      alpha=alpha or found.alpha or "drop",
      looked_at=looked_at,
    )

  @property
  def picture_settings(self) -> dict[str, int | str]:
    """What `data.examples.make` needs to know."""
    return {"res": self.res, "resize": self.resize, "alpha": self.alpha}

  @classmethod
  def from_path(cls, path: str | os.PathLike, **settings) -> "Processor":
    """Builds the processor of a directory; `settings` as in `from_files`."""
    names = (*tokenizer_lib.FILES, *added_tokens.FILES, hub_files.PREPROCESSOR, hub_files.PROCESSOR)
    path = pathlib.Path(path)
    if not path.is_dir():
      raise errors.UserError(f"{path}: no such directory")
    files = {n: (path / n).read_bytes() for n in names if (path / n).is_file()}
    return cls.from_files(files, place=str(path), **settings)

  def to_files(self) -> dict[str, bytes]:
    """File name -> content: all that `from_files` and transformers' AutoProcessor need."""
    settings = hub_files.Preprocessing(
      self.res, self.num_image_tokens, self.resize, self.text_len, self.alpha
    )
    files = hub_files.write_preprocessing(settings)
    if self.tokenizer is not None:
      files |= self.tokenizer.to_files()
    return files

  def __call__(
    self,
    images: Sequence,
    prompts: Sequence[str],
    suffixes: Sequence[str] | None = None,
    text_len: int | None = None,
    truncate: bool = False,
  ) -> structs.Batch:
    """Makes a batch: to answer the prompts, or to train on the suffixes.

    Args:
      images: one per prompt: a picture (path, bytes, PIL image or uint8 array), or a list of
        them. Examples may have different numbers of pictures; `mask_image` says which exist.
      prompts: the prefixes, without the final newline.
      suffixes: one per prompt, or None when answering.
      text_len: tokens (one more column with suffixes); else the processor's, else the next of
        32, 64, 128, 256, 512 that holds the longest.
      truncate: cut what is too long on the right instead of raising.

    Returns:
      Batch of numpy arrays, image uint8[B, res, res, 3], with several pictures uint8[B, F, …].

    Raises:
      errors.UserError: counts differ, a picture cannot be read, a text is too long.
    """
    images, prompts, suffixes = _checked(images, prompts, suffixes)
    lengths = [self.token_lengths(p, s) for p, s in zip(prompts, suffixes)]
    train = suffixes[0] is not None
    text_len = text_len or self.text_len or self._fitting(lengths, train, truncate)
    rows = []
    for i, (pictures, prefix, suffix) in enumerate(zip(images, prompts, suffixes)):
      pictures = [
        image.decode(p, "" if _is_path(p) else f"image {i}", self.alpha) for p in pictures
      ]
      example = structs.Example(pictures, prefix, suffix)
      rows.append(self.example(example, text_len, train, truncate))
    return stack(rows)

  def example(
    self, example: structs.Example, text_len: int, train: bool, truncate: bool = False
  ) -> structs.Batch:
    """Makes one row of a batch, without the batch axis; `stack` joins rows.

    Args:
      example: its images at any size.
      text_len: tokens.
      train: lay out the suffix too, in text_len + 1 columns; else only the prefix, in text_len.
      truncate: cut what is too long on the right instead of raising.
    """
    tokenizer = self.need_tokenizer()
    if not example.images:
      raise errors.UserError(f'no image for prefix "{example.prefix[:40]}"; at least one is needed')
    pictures = [image.resize(i, self.res, self.resize) for i in example.images]
    text = prompt.layout(
      tokenizer,
      example.prefix,
      example.suffix or "" if train else None,
      text_len + 1 if train else text_len,
      truncate,
    )
    return structs.Batch(
      image=pictures[0] if len(pictures) == 1 else np.stack(pictures),
      mask_image=np.ones(len(pictures), bool),
      text=text.text,
      mask_ar=text.mask_ar,
      mask_input=text.mask_input,
      mask_loss=text.mask_loss,
      valid=np.bool_(True),
    )

  def decode(self, tokens: np.ndarray) -> list[str]:
    """Texts of generated tokens int[B, M], each up to its first EOS."""
    tokenizer = self.need_tokenizer()
    return [tokenizer.decode(row) for row in np.asarray(tokens).tolist()]

  def spans(self, tokens: np.ndarray) -> list[list[tuple[int, int]]]:
    """For each text of `decode`, which letters [first, last) each token before EOS wrote."""
    tokenizer = self.need_tokenizer()
    return [tokenizer.spans(row) for row in np.asarray(tokens).tolist()]

  def prompts(self, batch: structs.Batch) -> list[str | None]:
    """The prefixes of a batch to be answered, None where `valid` is False.

    Raises:
      errors.UserError: a row holds the beginning of an answer.
    """
    tokenizer = self.need_tokenizer()
    found = []
    for text, mask_ar, is_token, valid in zip(
      *(np.asarray(x) for x in (batch.text, batch.mask_ar, batch.mask_input, batch.valid))
    ):
      if (mask_ar[is_token] != 0).any():
        raise errors.UserError(
          "a prompt that holds the beginning of an answer is not supported here"
        )
      prefix = tokenizer.decode(text[is_token].tolist())
      found.append(prefix.removesuffix("\n") if valid else None)
    return found

  def token_lengths(self, prefix: str, suffix: str | None) -> tuple[int, int]:
    """Tokens of BOS + prefix + newline, and of suffix + EOS (0 for None).

    Together they fit `text_len` when their sum is at most text_len + 1 with a suffix, text_len
    without.
    """
    tokenizer = self.need_tokenizer()
    head = 1 + len(tokenizer.encode(prefix)) + len(tokenizer.newline)
    return head, 0 if suffix is None else len(tokenizer.encode(suffix)) + 1

  def _fitting(self, lengths: list[tuple[int, int]], train: bool, truncate: bool) -> int:
    longest = max(map(sum, lengths)) - train
    return prompt.next_length(min(longest, prompt.LENGTHS[-1]) if truncate else longest)

  def need_tokenizer(self) -> tokenizer_lib.Tokenizer:
    """The tokenizer; a UserError that names the places looked at, when there is none."""
    if self.tokenizer is None:
      places = ", ".join(self.looked_at) or "nowhere"
      raise errors.UserError(
        f"no tokenizer (looked at: {places}); give --tokenizer FILE|DIR or set ${ENVIRONMENT}"
      )
    return self.tokenizer


def stack(rows: Sequence[structs.Batch], num_images: int | None = None) -> structs.Batch:
  """Joins rows of `Processor.example` to a batch.

  Args:
    rows: all with the same text length; the numbers of images may differ.
    num_images: F; by default the most that a row has. Missing ones are black and masked out.

  Returns:
    image uint8[B, H, W, 3] for F = 1, else uint8[B, F, H, W, 3]; mask_image bool[B, F].
  """
  counts = [len(r.mask_image) for r in rows]
  num_images = num_images or max(counts)
  if max(counts) > num_images:
    raise ValueError(f"a row has {max(counts)} images, num_images is {num_images}")
  if num_images == 1:
    pictures = np.stack([r.image.reshape(r.image.shape[-3:]) for r in rows])
  else:
    pictures = np.zeros((len(rows), num_images, *rows[0].image.shape[-3:]), rows[0].image.dtype)
    for out, row, n in zip(pictures, rows, counts):
      out[:n] = row.image
  exists = np.zeros((len(rows), num_images), bool)
  for out, row, n in zip(exists, rows, counts):
    out[:n] = row.mask_image
  rest = {k: np.stack([getattr(r, k) for r in rows]) for k in structs.Batch._fields[2:]}
  return structs.Batch(image=pictures, mask_image=exists, **rest)


def _checked(images, prompts, suffixes):
  """The three lists of `__call__`, each image a list of pictures, each missing suffix None."""
  for name, value in (("images", images), ("prompts", prompts), ("suffixes", suffixes)):
    if isinstance(value, (str, bytes)):
      raise errors.UserError(f"{name} is a list with one entry per example, found {value[:40]!r}")
  images, prompts = list(images), list(prompts)
  suffixes = [None] * len(prompts) if suffixes is None else list(suffixes)
  if not len(images) == len(prompts) == len(suffixes) or not prompts:
    raise errors.UserError(
      f"{len(images)} images, {len(prompts)} prompts, {len(suffixes)} suffixes; one each per "
      "example is needed (several images of one example go into a list)"
    )
  if any(s is None for s in suffixes) and any(s is not None for s in suffixes):
    raise errors.UserError(f"suffix {suffixes.index(None)} is None; give all suffixes, or none")
  return [list(i) if isinstance(i, (list, tuple)) else [i] for i in images], prompts, suffixes


def _is_path(picture) -> bool:
  return isinstance(picture, (str, os.PathLike))


def _find_tokenizer(files: dict[str, bytes], given, place: str):
  """The tokenizer, or None with the places that were looked at."""
  if isinstance(given, tokenizer_lib.Tokenizer):
    return given, ()
  if given:
    return tokenizer_lib.Tokenizer.from_path(given), ()
  if any(name in files for name in tokenizer_lib.FILES):
    return tokenizer_lib.Tokenizer.from_files(files, place), ()
  if os.environ.get(ENVIRONMENT):
    return tokenizer_lib.Tokenizer.from_path(os.environ[ENVIRONMENT]), ()
  beside = f"{', '.join(tokenizer_lib.FILES)} beside {place or 'the checkpoint'}"
  return None, (beside, f"${ENVIRONMENT} (not set)")
