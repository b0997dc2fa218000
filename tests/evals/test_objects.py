import numpy as np
import pytest

from paligemma_jax.evals import objects
from paligemma_jax.metrics import masks
from paligemma_jax.models import vqvae
from tests.metrics import golden

BOX = "<loc0256><loc0512><loc0768><loc1023>"  # y0 x0 y1 x1


def test_an_answer_in_pixels_of_its_picture():
  (cat,) = objects.parse(f"{BOX} cat", height=1023, width=2046)
  assert cat == {"label": "cat", "box": [1024, 256, 2046, 768], "codes": None}


def test_codes_become_a_mask_inside_the_box(monkeypatch):
  monkeypatch.setattr(objects, "decode", lambda codec, codes: np.ones((len(codes), 64, 64)))
  found = objects.parse(f"{BOX}{'<seg005>' * 16} cat ; {BOX} dog", 8, 8)
  (row,) = objects.with_masks([{"height": 8, "width": 8, "found": found}], "found", codec={})
  cat, dog = row["found"]
  want = np.zeros((8, 8), bool)
  want[2:6, 4:8] = True
  assert (cat["mask"] == want).all()
  assert dog["mask"] is None


def test_without_a_codec_there_are_no_masks():
  found = objects.parse(f"{BOX}{'<seg005>' * 16} cat", 8, 8)
  (row,) = objects.with_masks([{"height": 8, "width": 8, "found": found}], "found", codec=None)
  assert row["found"][0]["mask"] is None


def test_a_box_without_a_whole_pixel_is_invalid(monkeypatch):
  monkeypatch.setattr(objects, "decode", lambda codec, codes: np.ones((len(codes), 64, 64)))
  tiny = "<loc0000><loc0000><loc0003><loc0003>" + "<seg000>" * 16
  row = {"height": 8, "width": 8, "found": objects.parse(tiny, 8, 8)}
  assert objects.with_masks([row], "found", {})[0]["found"][0]["mask"] is None


def test_masks_do_not_depend_on_how_many_are_decoded_together():
  rng = np.random.default_rng(0)
  shapes = vqvae.param_shapes()
  codec = {k: rng.normal(size=s).astype(np.float32) * 0.1 for k, s in shapes.items()}
  codes = [tuple(c) for c in rng.integers(0, 128, (70, 16))]
  together = objects.decode(codec, codes)
  assert together.shape == (70, 64, 64)
  np.testing.assert_allclose(objects.decode(codec, codes[66:67])[0], together[66], atol=1e-5)
  assert objects.decode(codec, []).shape == (0, 64, 64)


def _text(case, data):
  """The tokens of a golden case as the text that they stand for."""

  def piece(token):
    if data["loc0"] <= token < data["loc0"] + 1024:
      return f"<loc{token - data['loc0']:04d}>"
    if data["seg0"] <= token < data["seg0"] + 128:
      return f"<seg{token - data['seg0']:03d}>"
    return "" if token == 1 else "x"

  return "".join(piece(t) for t in case["tokens"])


def _ellipse(cy, cx, ry, rx, height, width, dtype):
  y, x = np.mgrid[:height, :width].astype(dtype)
  return dtype(1) - ((y - dtype(cy)) / dtype(ry)) ** 2 - ((x - dtype(cx)) / dtype(rx)) ** 2


def test_golden_segmentation_from_text_to_score(monkeypatch):
  data = golden.load("segmentation_miou")

  def decode(codec, codes):  # as the golden data's README: an analytic picture for the first code
    pictures = [_ellipse(*data["decoder_ellipses"][c[0]], 64, 64, np.float32) for c in codes]
    return [p.clip(-1, 1) for p in pictures]

  monkeypatch.setattr(objects, "decode", decode)
  for case in data["cases"]:
    h, w = case["height"], case["width"]
    y0, x0, y1, x1 = case["gt_bbox_yxyx"]
    mask = _ellipse(*case["gt_ellipse"], h, w, np.float64) >= 0
    truth = {"label": "", "box": [x0 * w, y0 * h, x1 * w, y1 * h], "mask": mask}
    row = {"height": h, "width": w, "objects": [truth]}
    row["pred_objects"] = objects.parse(_text(case, data), h, w)
    got = masks.score(objects.with_masks([row], "pred_objects", {}))
    assert got["mask_iou"] == pytest.approx(case["iou"], abs=1e-6)
    assert got["box_at_0.5"] == case["box_at_0.5"]
    assert got["box_at_0.75"] == case["box_at_0.75"]
    assert got["invalid"] == case["invalid"]
