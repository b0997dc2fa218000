"""What the model sees, as one picture: a contact sheet of training examples.

Every card shows the resized picture exactly as the model gets it, once more with the boxes and
masks that the target tokens stand for (not those of the record: a box that is wrong here is wrong
for the model), and the tokens, coloured by what attends and what counts in the loss.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paligemma_jax import structs
from paligemma_jax.data import examples, pipeline, prepare, tasks
from paligemma_jax.processing import boxes, draw, masks

_SIDE = 224  # pixels of a picture on the sheet, at least
_GAP = 12
_COLUMNS = 2
_TEXT_WIDTH = 2 * _SIDE + _GAP
_INK, _GREY = (25, 25, 25), (110, 110, 110)
KINDS = {  # kind of token -> its colour, what it means
  "prefix": ((207, 226, 250), "image and prefix: see each other, no loss"),
  "target": ((255, 214, 170), "suffix: sees what is before it, in the loss"),
  "untrained": ((225, 225, 225), "suffix without loss"),
}
_SPECIAL = {0: "<pad>", 1: "<eos>", 2: "<bos>"}


def contact_sheet(
  sources: Mapping[str, Mapping],
  processor,
  *,
  text_len: int,
  seed: int = 0,
  count: int = 8,
  codec: str | Mapping[str, np.ndarray] | None = None,
  truncate: bool = False,
) -> Image.Image:
  """The first `count` examples of a training with these sources and this seed.

  Args:
    sources, processor, text_len, seed, codec, truncate: as `pipeline.train_batches`.
    count: examples to show.
  """
  places = pipeline.train_places(sources, seed, count)
  options = dict(text_len=text_len, seed=seed, codec=codec, truncate=truncate)
  with pipeline.train_batches(sources, processor, batch_size=count, **options) as batches:
    return sheet(next(batches), processor, codec, places)


def sheet(
  batch: structs.Batch,
  processor,
  codec: str | Mapping[str, np.ndarray] | None = None,
  titles: Sequence[str] = (),
) -> Image.Image:
  """A picture of all valid rows of a batch.

  Args:
    batch: numpy arrays, as `pipeline` delivers them.
    processor: that made it; its tokenizer names the tokens.
    codec: path or parameters of the mask codec; without it masks are not drawn.
    titles: a line for each row, such as where it stands.
  """
  cards = [
    _card(structs.Batch(*(field[i] for field in batch)), processor, codec, title)
    for i, title in enumerate(titles or [""] * len(batch.valid))
    if batch.valid[i]
  ]
  rows = [cards[k : k + _COLUMNS] for k in range(0, len(cards), _COLUMNS)]
  widths = [max(r[c].width for r in rows if c < len(r)) for c in range(min(_COLUMNS, len(cards)))]
  legend = _legend()
  width = max(sum(widths) + _GAP * (len(widths) + 1), legend.width + 2 * _GAP)
  height = legend.height + _GAP + sum(max(c.height for c in row) + _GAP for row in rows)
  out = Image.new("RGB", (width, height + _GAP), "white")
  out.paste(legend, (_GAP, _GAP))
  top = legend.height + 2 * _GAP
  for row in rows:
    left = _GAP
    for card, wide in zip(row, widths):
      out.paste(card, (left, top))
      left += wide + _GAP
    top += max(card.height for card in row) + _GAP
  return out


def _card(row: structs.Batch, processor, codec, title: str) -> Image.Image:
  frames, drawn = pictures_of(row, processor, codec)
  pictures = [_enlarged(f) for f in frames]
  if drawn is not None:
    pictures.append(drawn)
  width = max(_TEXT_WIDTH, sum(p.width + _GAP for p in pictures) - _GAP)
  text = _text(row, processor, width)
  head = 20 if title else 0
  tall = max(p.height for p in pictures)
  card = Image.new("RGB", (width, head + tall + _GAP // 2 + text.height), "white")
  if title:
    ImageDraw.Draw(card).text((0, 0), title, font=_font(13), fill=_GREY)
  left = 0
  for picture in pictures:
    card.paste(picture, (left, head))
    left += picture.width + _GAP
  card.paste(text, (0, head + tall + _GAP // 2))
  return card


def row_of(
  source,
  i: int,
  rules: tasks.Rules,
  processor,
  *,
  text_len: int,
  codec: str | Mapping[str, np.ndarray] | None = None,
) -> structs.Batch:
  """Record i of a source as the model would be trained on it: its first draft, cut if too long.

  Args:
    source, rules: where it lies and how it becomes an example.
    processor: makes the row.
    text_len: as `pipeline.train_batches`; 0: as many tokens as it needs.
    codec: for the mask codes of a "segment" example; without it they are all 0.

  Returns:
    One row, without the batch axis.

  Raises:
    errors.UserError: it cannot be read.
  """
  codes = None
  if rules.task in tasks.MASKED and codec is not None:
    codes = prepare.record_codes(source[i], source.folder, codec, source.place(i))
  example = examples.make(source, i, rules, codes=codes, **processor.picture_settings)
  if rules.resize:
    processor = dataclasses.replace(processor, resize=rules.resize)
  needed = sum(processor.token_lengths(example.prefix, example.suffix)) - 1
  return processor.example(example, text_len or needed, True, truncate=True)


def pictures_of(
  row: structs.Batch, processor, codec: str | Mapping[str, np.ndarray] | None = None
) -> tuple[list[np.ndarray], Image.Image | None]:
  """The pictures of a row as the model gets them, and what the target tokens say about the last.

  Args:
    row: one example, without the batch axis.
    processor, codec: as `sheet`.

  Returns:
    uint8[res, res, 3] of each picture that exists, and the last with its boxes and masks drawn,
    at least 224 pixels a side; None where the tokens hold no box.
  """
  frames = row.image if row.image.ndim == 4 else row.image[None]
  frames = [f for f, there in zip(frames, np.atleast_1d(row.mask_image)) if there]
  frames = [f if f.dtype == np.uint8 else _grey_levels(f) for f in frames]
  text = processor.tokenizer.decode([int(t) for t in row.text[row.mask_loss > 0]])
  height, width = frames[-1].shape[:2]
  found = boxes.parse_boxes(text, height, width)
  if not found:
    return frames, None
  marks = draw.marks(found, masks=_masks(found, codec, height, width))
  return frames, draw.annotate(frames[-1], marks, side=max(_enlarged(frames[-1]).size))


def _masks(found, codec, height, width) -> list[np.ndarray | None]:
  coded = [b for b in found if b.codes]
  if codec is None or not coded:
    return [None] * len(found)
  small = iter(prepare.decode_codes([b.codes for b in coded], codec))
  return [masks.paste(next(small), b, height, width) if b.codes else None for b in found]


def _grey_levels(x: np.ndarray) -> np.ndarray:
  return np.clip(np.round((x + 1) * 127.5), 0, 255).astype(np.uint8)


def _enlarged(pixels: np.ndarray) -> Image.Image:
  """The picture with every pixel as a square: small ones become visible, none is blurred."""
  picture = Image.fromarray(pixels)
  factor = max(1, round(_SIDE / max(picture.size)))
  return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def tokens_of(row: structs.Batch, processor) -> list[tuple[str, str | None]]:
  """(how it reads, a name in `KINDS`) of every token of a row, those of the image as one.

  The last says how many are padding, and has no kind.
  """
  last = np.flatnonzero(row.mask_input)
  used = int(last[-1]) + 1 if len(last) else 0
  found = [(f"image × {processor.num_image_tokens}", "prefix")]
  for token, block, loss in zip(row.text[:used], row.mask_ar, row.mask_loss):
    kind = "prefix" if not block else "target" if loss else "untrained"
    found.append((_piece(int(token), processor.tokenizer), kind))
  return [*found, (f"+ {len(row.text) - used} padding", None)]


def _text(row, processor, width: int) -> Image.Image:
  """All tokens as coloured chips, wrapped."""
  font, line = _font(14), 22
  placed, x, y = [], 0, 0
  for piece, kind in tokens_of(row, processor):
    wide = int(np.ceil(font.getlength(piece))) + 6
    if x and x + wide > width:
      x, y = 0, y + line
    placed.append((x, y, wide, piece, kind))
    x += wide + 2
  out = Image.new("RGB", (width, y + line), "white")
  pen = ImageDraw.Draw(out)
  for x, y, wide, piece, kind in placed:
    if kind:
      pen.rectangle((x, y, x + wide - 1, y + line - 4), fill=KINDS[kind][0])
    pen.text((x + 3, y + 1), piece, font=font, fill=_INK if kind else _GREY)
  return out


def _piece(token: int, tokenizer) -> str:
  """A token as it reads alone, spaces and line ends made visible."""
  if token in _SPECIAL:
    return _SPECIAL[token]
  return tokenizer.decode([token]).replace(" ", "·").replace("\n", "\\n") or f"#{token}"


def _legend() -> Image.Image:
  font = _font(14)
  out = Image.new("RGB", (2 * _TEXT_WIDTH + _GAP, 22), "white")
  pen, x = ImageDraw.Draw(out), 0
  for color, text in KINDS.values():
    wide = int(np.ceil(font.getlength(text))) + 10
    pen.rectangle((x, 0, x + wide, 19), fill=color)
    pen.text((x + 5, 1), text, font=font, fill=_INK)
    x += wide + _GAP
  return out


def _font(size: int):
  try:
    return ImageFont.truetype("DejaVuSans.ttf", size)  # more alphabets, where it is installed
  except OSError:
    return ImageFont.load_default(size)
