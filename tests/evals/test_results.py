import html.parser
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.data import examples, sources, tasks
from paligemma_jax.evals import results
from tests import toy

ROWS = [
  {"id": i, "image": None, "prefix": f"what is <{i}>?", "prediction": p, "suffix": "yes"}
  for i, p in enumerate(["yes", "no", "yes", "yes"])
]


def scored(rows=ROWS):
  right = [float(row["prediction"] == row["suffix"]) for row in rows]
  rows = [{**row, "scores": {"exact_match": r}} for row, r in zip(rows, right)]
  return {"exact_match": sum(right) / len(right)}, rows


def values(rows=ROWS):
  return results.with_intervals("exact_match", *scored(rows))


def entry(value, *scores, std=None):
  return {"scores": scores, "value": value, "std": std, "source": "a paper"}


@pytest.fixture
def lines():
  """Two evaluations; published are the score of one, their mean, and one that did not run."""
  found = {"val": values(), "test": values(ROWS[:2])}
  expect = {
    "val/exact_match": entry(0.8, "val/exact_match", std=0.02),
    "both": entry(0.6, "val/exact_match", "test/exact_match"),
    "server": entry(0.5, "server/exact_match"),
  }
  return results.collect("vqa", found, expect, "vqa.py", "<CKPT>")


def test_every_score_stands_beside_the_published_one(lines):
  val, both, server, test = lines
  assert (val.score, val.value, val.published, val.std) == ("val/exact_match", 0.75, 0.8, 0.02)
  assert val.passed and val.difference == pytest.approx(-0.05)  # within three deviations
  assert (both.value, both.passed, both.evaluations) == (0.625, True, ("val", "test"))
  assert (server.value, server.low, server.mark) == (None, None, "not scored")
  assert (test.score, test.value, test.mark) == ("test/exact_match", 0.5, "")


def test_scores_have_intervals_and_means_the_mean_of_their_ends(lines):
  val, both, _, test = lines
  assert 0 <= val.low < 0.75 < val.high <= 1
  assert both.low == (val.low + test.low) / 2 and both.high == (val.high + test.high) / 2


def test_the_sign_of_lower_is_better_is_not_shown():
  expect = {"-val/exact_match": entry(0.1, "val/exact_match")}
  (line,) = results.collect("x", {"val": values()}, expect)
  assert line.score == "val/exact_match" and line.passed is False


def test_text_has_columns_for_what_is_known(lines):
  heads = lambda scores: results.cells(scores)[0]
  assert heads(lines)[:4] == ("score", "value", "95 %", "published")
  assert heads(lines[-1:]) == ("score", "value", "95 %")
  other = results.Score("other", "val/acc", ("val",), 0.5)
  assert heads([*lines, other])[:3] == ("transfer", "score", "value")


def test_json_holds_every_line(lines, tmp_path):
  results.write_json(tmp_path / "results.json", lines)
  val, _, server, _ = json.loads((tmp_path / "results.json").read_text())
  assert val["value"] == 0.75 and val["passed"] is True and val["config"] == "vqa.py"
  assert server["value"] is None and server["source"] == "a paper"


def test_a_number_that_is_not_finite_is_null_in_the_json(tmp_path):
  results.write_json(tmp_path / "r.json", [results.Score("vqa", "val_pplx/sum", value=math.nan)])
  assert json.loads((tmp_path / "r.json").read_text())[0]["value"] is None


class _Page(html.parser.HTMLParser):
  """Links, anchors and what a browser would load; asserts that every element is closed."""

  def __init__(self, path):
    super().__init__()
    self.open, self.sources, self.links, self.ids = [], [], [], set()
    self.text = path.read_text()
    self.feed(self.text)
    assert not self.open and not re.search(r"https?://", self.text)

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    if tag not in ("meta", "img", "br"):
      self.open.append(tag)
    self.sources += [attributes["src"]] if "src" in attributes else []
    self.links += [attributes["href"]] if "href" in attributes else []
    self.ids |= {attributes["id"]} if "id" in attributes else set()

  def handle_startendtag(self, tag, attributes):
    pass

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_a_page_shows_its_predictions_and_leads_to_them(lines, tmp_path):
  path = tmp_path / "results.html"
  galleries = results.predictions({"val": scored()[1], "test": scored(ROWS[:2])[1]})
  results.write_page(path, "vqa", lines, galleries)
  page = _Page(path)
  assert (
    {link.removeprefix("#") for link in page.links} == {"gallery-val", "gallery-test"} <= page.ids
  )
  assert "2 reached, 1 not scored" in page.text and "vqa.py · &lt;CKPT&gt;" in page.text
  assert "what is &lt;3&gt;?" in page.text and "<3>" not in page.text
  assert page.text.count('type="search"') == 2


def test_the_page_of_several_leads_to_those_of_each(lines, tmp_path):
  other = results.Score("x=1 #2", "val/acc", ("val",), 0.5)
  results.write_page(tmp_path / "results.html", "2 transfers", [*lines, other])
  page = _Page(tmp_path / "results.html")
  assert set(page.links) >= {"./vqa/results.html#gallery-val", "./x%3D1%20%232/results.html"}
  assert "and 1 more" in page.text  # of vqa, what has no published score
  assert "test/exact_match" not in page.text and "val/acc" in page.text


def test_many_evaluations_share_the_pictures_of_a_page():
  many = {f"e{i}": scored(ROWS * 50)[1] for i in range(40)}
  cards = results.predictions(many).count("<article")
  assert cards == 40 * 2 * 15  # 1,200


class _Store:
  """Records that hold their pictures."""

  holds_pictures, folder, max_images = True, "", 1

  def __init__(self, records):
    self.records = records

  def __len__(self):
    return len(self.records)

  def __getitem__(self, i):
    return self.records[i]

  def place(self, i):
    return f"store:{i}"


def test_pictures_of_records_are_found_by_their_place(tmp_path):
  files = []
  for i, picture in enumerate(toy.pictures()[:2]):
    Image.fromarray(picture).save(tmp_path / f"{i}.png")
    files.append((tmp_path / f"{i}.png").read_bytes())
  store = _Store([{"image": f, "prefix": "q", "suffix": "a"} for f in files])
  rules = tasks.Rules.of({"task": "text"}, "data")
  rows = [{"image": "store:1", "id": 7}, {"image": "data:;base64,AA=="}]
  first, second = examples.with_pictures(rows, store, rules)
  np.testing.assert_array_equal(first["image"], toy.pictures()[1])
  assert first["id"] == 7 and second == rows[1]


def test_rows_of_files_keep_their_paths(tmp_path):
  Image.fromarray(toy.pictures()[0]).save(tmp_path / "a.png")
  (tmp_path / "d.jsonl").write_text('{"image": "a.png", "prefix": "q", "suffix": "a"}\n')
  source = sources.open_source({"path": str(tmp_path / "d.jsonl")})
  rows = [{"image": str(tmp_path / "a.png")}]
  assert examples.with_pictures(rows, source, tasks.Rules.of({"task": "text"}, "data")) == rows
