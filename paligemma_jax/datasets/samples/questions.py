"""Miniatures of the question-answering sets with pictures of their own, and of those on others'."""

import io
import pathlib

from paligemma_jax.datasets import coco, xgqa
from paligemma_jax.datasets.samples import documents, scenes


def pope(folder: pathlib.Path) -> None:
  """Six questions about each of three photos, half of them yes."""
  names = [coco.file_2014("val2014", 42 + i) for i in range(3)]
  scenes.save_scenes(folder / "val2014", names)
  for kind in ("random", "popular", "adversarial"):
    rows = []
    for i, name in enumerate(names):
      there = {s.kind for s in scenes.scene(i).shapes} | {s.color for s in scenes.scene(i).shapes}
      for k, thing in enumerate(["circle", "square", "triangle", "octagon", "apple", "umbrella"]):
        article = "an" if thing[0] in "aou" else "a"
        rows.append({
          "question_id": k + 1, "image": name, "text": f"Is there {article} {thing} in the image?",
          "label": "yes" if thing in there else "no",
        })  # fmt: skip
    path = folder / f"output/coco/coco_pope_{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(scenes.json_lines(rows))


def countbenchqa(folder: pathlib.Path) -> None:
  """Ten rows of a Parquet file: one without a picture, one of it grey."""
  import pyarrow
  from pyarrow import parquet

  rows, questions = [], []
  for i in range(10):
    scene, out = scenes.scene(i), io.BytesIO()
    scene.picture().convert("L" if i == 4 else "RGB").save(out, "JPEG")
    image = None if i == 2 else {"bytes": out.getvalue(), "path": None}
    rows.append({
      "image": image, "text": f"{len(scene.shapes)} shapes – très joli", "number": len(scene.shapes),
      "image_url": f"http://example.org/{i}.jpg",
    })  # fmt: skip
    questions.append({"question": "How many shapes are there in the image?"})
  table = pyarrow.Table.from_pylist(rows)
  parquet.write_table(table, folder / "train-00000-of-00001-cf54c241ba947306.parquet")
  scenes.save_json(folder / "countbench_paired_questions.json", questions)


def infovqa(folder: pathlib.Path) -> None:
  """Infographics with one fact, and with a list as the answer."""
  for n, (split, name) in enumerate({
    "train": "infographicsVQA_train_v1.0.json", "val": "infographicsVQA_val_v1.0_withQT.json",
    "test": "infographicsVQA_test_v1.0.json",
  }.items()):  # fmt: skip
    rows = []
    for i in range(8):
      file = f"{100 * n + i}.{'png' if i % 2 else 'jpeg'}"
      colors = [scenes.COLORS[(i + k) % 6].title() for k in range(1 + i % 3)]
      scenes.save(folder / "images" / file, documents.page(["Our colours:", *colors, f"{i} %"]))
      row = {
        "questionId": 1000 * n + i, "question": "Which colours are ours?", "data_split": split,
        "image_local_name": file, "ocr_output_file": f"{100 * n + i}.json",
      }  # fmt: skip
      rows.append(row if split == "test" else {**row, "answers": [", ".join(colors)]})
    whole = {"dataset_name": "infographicVQA", "dataset_split": split, "data": rows}
    scenes.save_json(folder / name, whole)


def stvqa(folder: pathlib.Path) -> None:
  """Boards of two collections, one of which lies in COCO's own folder."""
  for part, pictures in (("train", "train_images"), ("test", "test_task3_images")):
    rows = []
    for i in range(40):
      board = documents.sign(i % 8)
      if i % 4 == 0:
        path = f"coco-text/{coco.file_2014('train2014', 9 + i)}"
        scenes.save(folder / path.replace("coco-text", "train2014"), board)
      else:
        path = f"iiit-text/{part}{i}.jpg"
        scenes.save(folder / pictures / path, board)
      row = {
        "question_id": i, "question": "What is written?", "file_path": path, "set_name": part,
        "file_name": path.rpartition("/")[2], "dataset": path.partition("/")[0],
      }  # fmt: skip
      said = documents.WORDS[i % 8]
      rows.append(row if part == "test" else {**row, "answers": [said, said.title()]})
    scenes.save_json(folder / f"{part}_task_3.json", {"task_name": "task 3", "data": rows})


def ocrvqa(folder: pathlib.Path) -> None:
  """Covers with title and author, three questions each; one could not be loaded."""
  books = {}
  for i in range(24):
    key, author = f"{1761183272 + i}", f"{scenes.COLORS[i % 6].title()} O'Neill"
    title = f"{documents.WORDS[i % 8]} and tea"
    ending = ".png" if i % 5 == 1 else ".jpg"
    if i != 20:
      scenes.save(folder / f"images/{key}{ending}", documents.page([title, author]))
    books[key] = {
      "imageURL": f"http://ecx.images-amazon.com/{key}{ending}", "title": title, "authorName": author,
      "questions": ["Who wrote this book?", "What is the title?", "Is this a cookbook?"],
      "answers": [author, title, "No"], "genre": "Humor", "split": 1 + i // 8,
    }  # fmt: skip
  scenes.save_json(folder / "dataset.json", books)


def rsvqa_lr(folder: pathlib.Path) -> None:
  """Tiles with questions of four types; one is not active."""
  types = {"rural_urban": None, "count": "0", "presence": None, "comp": None}
  _rsvqa(folder, "LR_split", ("train", "val", "test"), "Images_LR/{}.tif", types)


def rsvqa_hr(folder: pathlib.Path) -> None:
  """Tiles with questions of four types; one is not active."""
  types = {"area": "m2", "count": "0", "presence": None, "comp": None}
  splits = ("train", "val", "test", "test_phili")
  _rsvqa(folder, "USGS_split", splits, "Data/{}.png", types)


def _rsvqa(folder, prefix, splits, picture, types):
  numbers = (0, 7, 10, 11, 500, 1000, 1001, 3)
  for n, split in enumerate(splits):
    questions, answers, images = [], [], []
    for i in range(8):
      img_id, scene = 8 * n + i, scenes.scene(i)
      scenes.save(folder / picture.format(img_id), scene.picture())
      images.append({"id": img_id, "active": True})
      for k, (kind, unit) in enumerate(types.items()):
        number = 100 * n + 10 * i + k
        kinds = {s.kind for s in scene.shapes}
        if unit is not None:
          answer = f"{numbers[i]}{unit.strip('0')}"
        elif kind == "rural_urban":
          answer = "rural"
        else:
          answer = "yes" if "circle" in kinds else "no"
        is_active = (i, k) != (7, 3)
        asked = {
          "id": number,
          "img_id": img_id,
          "type": kind,
          "question": f"Is there a circle? ({kind})",
        }
        asked |= {"active": is_active, "answers_ids": [5000 + number], "people_id": 0}
        given = {"id": 5000 + number, "question_id": number, "answer": answer, "active": is_active}
        for rows, row in ((questions, asked), (answers, given)):
          rows.append(row if is_active else {"id": row["id"], "active": False})
    for what, rows in (("questions", questions), ("answers", answers), ("images", images)):
      scenes.save_json(folder / f"{prefix}_{split}_{what}.json", {what: rows})


def xgqa_files(folder: pathlib.Path) -> None:
  """Balanced questions in eight languages, and few of them to train on in one."""
  scenes.save_scenes(folder / "images", [f"{2354786 + i}.jpg" for i in range(8)])
  for language in xgqa.LANGUAGES:
    questions = {}
    for i in range(8):
      question, answer, _ = scenes.scene(i).questions[i % 3]
      if language in ("zh", "ru"):
        question = {"zh": "这是什么？", "ru": "Что это?"}[language] + f" {question}"
      row = {
        "imageId": str(2354786 + i),
        "question": question,
        "answer": answer,
        "isBalanced": True,
      }
      questions[f"2022{i}"] = {**row, "fullAnswer": answer, "semantic": []}
    scenes.save_json(
      folder / f"zero_shot/testdev_balanced_questions_{language}.json", questions, ascii_only=False
    )
    if language == "de":
      for part in ("test", "dev", "train_1", "train_48"):
        scenes.save_json(
          folder / f"few_shot/de/{part}.json", dict([*questions.items()][: len(part)])
        )
