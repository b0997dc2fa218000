import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.data import pipeline, survey
from paligemma_jax.evals import data_page
from paligemma_jax.processing import masks, processor
from tests import toy

MASK = masks.encode_rle(np.ones((30, 40), bool))
CAT = {"label": "cat", "box": [0, 0, 20, 15], "mask": MASK}


class _Page(html.parser.HTMLParser):
  """What a browser would load, where links lead, and whether every element is closed."""

  def __init__(self, text):
    super().__init__()
    self.open, self.images, self.links, self.ids, self.tokens = [], [], [], set(), []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    if tag not in ("meta", "img", "br"):
      self.open.append((tag, attributes.get("class")))
    if tag == "img":
      self.images.append(attributes["src"])
    if tag == "a":
      self.links.append(attributes["href"])
    if "id" in attributes:
      self.ids.add(attributes["id"])

  def handle_startendtag(self, tag, attributes):
    pass

  def handle_endtag(self, tag):
    assert self.open.pop()[0] == tag

  def handle_data(self, data):
    if self.open and self.open[-1][0] == "span":
      self.tokens.append((data, self.open[-1][1]))


@pytest.fixture
def made(tmp_path):
  """made(records, task, tokenizer=…) -> (page, source config, processor)."""
  for i, picture in enumerate(toy.pictures()):
    Image.fromarray(picture).save(tmp_path / f"p{i}.png")

  def make(records, task="text", tokenizer=True):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(r) if isinstance(r, dict) else r for r in records))
    config = {"path": str(path), "task": task}
    p = processor.Processor(toy.tokenizer() if tokenizer else None, 28, 4)
    found = survey.run({"train.data.x": config}, {}, p, text_len=32)
    data_page.write(tmp_path / "check.html", found, p)
    page = _Page((tmp_path / "check.html").read_text())
    assert not page.open
    return page, config, p

  return make


def _pixels(url):
  return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_the_pixels_are_those_of_the_batch(made):
  record = {"image": ["p0.png", "p3.png"], "objects": [CAT]}
  page, config, p = made([record], "detect")
  options = dict(batch_size=1, text_len=32, seed=0)
  with pipeline.train_batches({"x": config}, p, **options) as batches:
    batch = next(batches)
  first, second, drawn = page.images
  assert first.startswith("data:image/png") and drawn.startswith("data:image/jpeg")
  for url, want in zip((first, second), batch.image[0], strict=True):
    np.testing.assert_array_equal(_pixels(url), want)


def test_tokens_have_the_colour_of_their_block(made):
  page, _, p = made([{"image": "p0.png", "prefix": "caption en", "suffix": "yes"}])
  shown = [token for token in page.tokens if token[1] in ("prefix", "target", "rest")][2:]  # legend
  count = lambda text: len(p.tokenizer.encode(text))
  kinds = [kind for _, kind in shown]
  prefix = 1 + 1 + count("caption en") + 1  # image, BOS, prefix, newline
  assert kinds == ["prefix"] * prefix + ["target"] * (count("yes") + 1) + ["rest"]
  assert shown[0][0] == "image × 4" and shown[1][0] == "<bos>" and shown[-2][0] == "<eos>"


def test_defects_come_first_with_links_to_their_examples(made, tmp_path):
  good = [{"image": "p0.png", "prefix": str(i), "suffix": "yes"} for i in range(3)]
  bad = [{**good[0], "suffix": ""}, {**good[0], "image": "<gone>.png"}, "{"]
  page, *_ = made(good + bad)
  text = (tmp_path / "check.html").read_text()
  assert text.index("&quot;suffix&quot; is empty") < text.index("<h2>Sources") < text.index("<h3>")
  inside = [link[1:] for link in page.links if link.startswith("#")]
  assert set(inside) == {"e0", "e1", "e2"} <= page.ids
  assert (tmp_path / "p0.png").as_uri() in page.links
  assert "&lt;gone&gt;.png" in text and "<gone>" not in text
  assert not re.search(r'(src|href)="(?!data:|#|file:)', text)  # self-contained


def test_without_a_tokenizer_texts_and_pictures_are_shown(made):
  page, *_ = made([{"image": "p0.png", "prefix": "caption en", "suffix": "yes"}], tokenizer=False)
  assert ("caption en", "prefix") in page.tokens and ("yes", "target") in page.tokens
  assert _pixels(page.images[0]).shape == (28, 28, 3)


def test_a_page_of_a_source_that_cannot_be_opened(made, tmp_path):
  page, *_ = made([])
  text = (tmp_path / "check.html").read_text()
  assert "1 defect in 1 source;" in text and "no examples" in text
