"""Miniatures of the sets with pairs of pictures."""

import pathlib

from paligemma_jax.datasets import marvl as marvl_builder
from paligemma_jax.datasets.samples import scenes


def nlvr2(folder: pathlib.Path) -> None:
  """Two sentences about each of eight pairs a split; a picture that is JPEG by content."""
  for name in ("train", "dev", "test1"):
    rows = []
    for i in range(8):
      left, right, pair = scenes.scene(i), scenes.scene(i + 3), f"{name}-{10171 + i}-0"
      place = f"images/train/{i % 2}" if name == "train" else name
      scenes.save(folder / place / f"{pair}-img0.png", left.picture())
      kind = "JPEG" if i == 2 else "PNG"
      scenes.save(folder / place / f"{pair}-img1.png", right.picture(), format=kind)
      same = left.shapes[0].color == right.shapes[0].color
      count = len(left.shapes) + len(right.shapes)
      for k, (sentence, is_true) in enumerate([
        (f"There are {count} shapes in all.", True), ("The shapes on the left are alike in colour.", same),
      ]):  # fmt: skip
        row = {
          "sentence": sentence, "label": str(is_true), "identifier": f"{pair}-{k}", "writer": "61",
          "left_url": "http://x/a", "right_url": "http://x/b", "synset": "shape", "query": "shapes",
        }  # fmt: skip
        rows.append(
          {**row, "directory": i % 2} if name == "train" else {**row, "extra_validations": []}
        )
    path = folder / f"data/{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(scenes.json_lines(rows))


def marvl(folder: pathlib.Path) -> None:
  """Sentences in five languages; labels are true and false, not text."""
  for n, language in enumerate(marvl_builder.LANGUAGES):
    rows = []
    for i in range(8):
      concept = f"{30 + i}-{('Ndizi', 'Çay', '茶', 'தேநீர்')[i % 4]}"
      for k, name in enumerate((f"{30 + i}-1.jpg", f"{30 + i}-2.png")):
        scenes.save(
          folder / f"marvl-images/{language}/images/{concept}/{name}", scenes.scene(i + k).picture()
        )
      rows.append({
        "concept": concept, "language": language, "caption": f"{('画', 'picha')[i % 2]}: {1 + i % 3}",
        "left_img": f"{30 + i}-1.jpg", "right_img": f"{30 + i}-2.png", "chapter": "Food",
        "annotator_info": {"annotator_id": n}, "id": f"{language}-{i}", "label": i % 2 == 0,
      })  # fmt: skip
    path = folder / f"marvl-annotations/marvl-{language}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(scenes.json_lines(rows), encoding="utf-8")


def mmvp(folder: pathlib.Path) -> None:
  """Eight questions, two and two with the same words about two pictures."""
  rows = [("Index", "Question", "Options", "Correct Answer")]
  for i in range(8):
    scene = scenes.scene(3 * i)  # one shape
    scenes.save(folder / f"MMVP Images/{i + 1}.jpg", scene.picture())
    shape, other = scene.shapes[0], scenes.scene(3 * (i ^ 1)).shapes[0]
    first, second = sorted([shape, other], key=lambda s: s.color)
    options = f"(a) {first.color.title()} (b) {second.color.title()}, or so"
    letter = "(a)" if shape is first else "(b)"
    rows.append((i + 1, "What color is the shape?", options, letter))
  (folder / "Questions.csv").write_text(scenes.csv_text(rows))
