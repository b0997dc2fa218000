import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.evals import gallery, predictions, report


@pytest.fixture
def workdir(tmp_path):
  """A run of 40 steps with one evaluation of two pictures, one of them lost."""
  lines = [
    {
      "step": s,
      "loss": 5.0 / s,
      "lr": 1e-3,
      "l2_grads": 1.0,
      "seconds_per_step": 0.5,
      "data_wait": 0.1,
    }
    for s in range(1, 41)
  ]
  lines += [
    {"step": 20, "eval/seg/mask_iou": 0.3, "eval/seg/mask_iou_ceiling": 0.9},
    {"step": 40, "eval/seg/mask_iou": 0.625, "eval/seg/mask_iou_ceiling": 0.9},
  ]
  (tmp_path / "metrics.jsonl").write_text(
    "".join(json.dumps(x) + "\n" for x in lines) + '{"step": 41,'
  )
  config = {"model": {"preset": "tiny"}, "train": {"batch_size": 8, "lr": 0.001, "data": {"a": {}}}}
  (tmp_path / "config.json").write_text(json.dumps(config))
  picture = tmp_path / "a.png"
  Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(picture)
  mask = np.zeros((20, 30), bool)
  mask[5:15, 5:20] = True
  thing = {"label": "cat", "box": [5, 5, 20, 15], "mask": mask}
  row = {
    "id": 0,
    "image": str(picture),
    "prefix": "segment <cat>",
    "prediction": "x",
    "suffix": "y",
  }
  row |= {"scores": {"mask_iou": 0.5}, "objects": [thing], "pred_objects": [thing]}
  lost = {**row, "id": 1, "image": str(tmp_path / "gone.png")}
  predictions.write(tmp_path, "seg", [row, lost])
  return tmp_path


class _Checker(html.parser.HTMLParser):
  """Collects what a browser would load and whether every element is closed."""

  VOID = {"meta", "img", "br"}

  def __init__(self):
    super().__init__()
    self.open, self.sources = [], []

  def handle_starttag(self, tag, attrs):
    self.sources += [v for k, v in attrs if k in ("src", "href")]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    pass

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def _check(page):
  checker = _Checker()
  checker.feed(page)
  assert checker.open == []
  return checker


def test_the_page_is_well_formed_and_needs_nothing_else(workdir):
  page = report.write_report(workdir).read_text()
  checker = _check(page)
  assert all(source.startswith("data:image/jpeg;base64,") for source in checker.sources)
  assert len(checker.sources) == 1  # the other picture is lost, and the page says so
  assert "picture not found" in page
  assert not re.search(r"https?://", page)


def test_it_shows_scores_curves_and_the_time_spent_waiting(workdir):
  page = report.write_report(workdir).read_text()
  assert "<b>0.625</b>" in page and "ceiling 0.900" in page
  assert "10.0%" in page  # waiting for data
  for title in ("Training loss", "Learning rate", "Gradient norm"):
    assert title in page
  assert page.count("<svg") == 5


def test_text_of_the_data_cannot_become_markup(workdir):
  page = report.write_report(workdir).read_text()
  assert "segment &lt;cat&gt;" in page and "<cat>" not in page


def test_a_step_that_was_run_again_shows_its_later_values(tmp_path):
  lines = [{"step": 1, "loss": 9.0}, {"step": 2, "loss": 8.0}, {"step": 2, "loss": 7.0}]
  (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
  page = report.write_report(tmp_path).read_text()
  assert "loss: 7" in page and "loss: 8" not in page


def test_an_empty_workdir_still_gives_a_page(tmp_path):
  _check(report.write_report(tmp_path).read_text())


def test_boxes_and_codes_are_shown_as_signs():
  box, codes = "<loc0001><loc0002><loc0003><loc0004>", "<seg000>" * 16
  assert gallery._readable(f"{box} cat ; {box} dog") == "▭ cat ; ▭ dog"
  assert gallery._readable(f"{box}{codes} cat") == "▭ ◍ cat"
  assert gallery._readable("<loc0001> alone") == "<loc0001> alone"


def _rows(scores, **more):
  return [
    {"prefix": f"q{i}", "prediction": f"a{i}", "suffix": "yes", "scores": {"acc": s}, **more}
    for i, s in enumerate(scores)
  ]


def test_a_long_evaluation_shows_its_first_and_its_worst_rows():
  page = gallery.section("val", _rows([0.5, 1, 1, 0, 0.2, 1]), first=2, worst=2)
  assert re.findall(r'data-order="(\d)" data-score="([\d.]+)"', page) == [
    ("0", "0.500000"), ("1", "1.000000"), ("3", "0.000000"), ("4", "0.200000"),
  ]  # fmt: skip
  assert "the first 2 and the 2 worst of the others of 6" in page


def test_of_likelihoods_the_highest_is_the_worst():
  rows = [{"suffix": "y", "nll_sum": v, "scores": {"sum": v}} for v in (3.0, 1.0, 9.0)]
  page = gallery.section("pplx", rows, first=0, worst=1)
  assert re.findall(r'data-score="([-\d.]+)"', page) == ["-9.000000"]


def test_only_rows_that_are_shown_are_seen():
  seen = []
  gallery.section("val", _rows([1, 0, 1]), 1, 1, lambda rows: seen.extend(rows) or rows)
  assert [row["prefix"] for row in seen] == ["q0", "q1"]


def test_of_many_pictures_four_are_shown_with_the_objects_on_the_last():
  frames = [np.full((8, 8, 3), 20 * k, np.uint8) for k in range(10)]
  found = [{"label": "", "box": [0, 0, 8, 8]}]
  rows = _rows([1], image=frames, pred_objects=found)
  page = gallery.section("video", rows, first=1)
  pictures = [
    np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    for data in re.findall(r'base64,([^"]*)"', page)
  ]
  assert [int(p[56, 56].mean().round()) for p in pictures] == pytest.approx(
    [0, 60, 120, 180], abs=3
  )
  assert [p.std() > 5 for p in pictures] == [False, False, False, True]
