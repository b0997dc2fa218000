"""Miniatures of the question-answering sets on COCO photos."""

import pathlib

from paligemma_jax.datasets import coco
from paligemma_jax.datasets.samples import scenes


def vqav2(folder: pathlib.Path) -> None:
  """Three questions for each of eight pictures a split; the answers disagree in places.

  Of the test pictures, one is missing; one question is in Spanish.
  """
  for year, first in (("train2014", 9), ("val2014", 42), ("test2015", 1), ("test-dev2015", 1)):
    pictures = year.replace("-dev", "")
    ids = range(first, first + 8)
    scenes.save_scenes(folder / pictures, [coco.file_2014(pictures, i) for i in ids])
    questions, annotations = [], []
    for i, image_id in enumerate(ids):
      for k, (question, answer, kind) in enumerate(scenes.scene(i).questions):
        question_id = image_id * 1000 + k
        if (i, k) == (0, 0):
          question = f"¿De qué color es? {question}"
        asked = {"image_id": image_id, "question": question, "question_id": question_id}
        questions.append(asked)
        annotations.append({
          "question_type": " ".join(question.lower().split()[:3]),
          "multiple_choice_answer": answer,
          "answers": answers(answer),
          "image_id": image_id,
          "answer_type": kind,
          "question_id": question_id,
        })  # fmt: skip
    head = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": year}
    name = f"v2_OpenEnded_mscoco_{year}_questions.json"
    scenes.save_json(
      folder / name, {**head, "license": {}, "questions": questions}, year == "val2014"
    )
    if "test" not in year:
      name = f"v2_mscoco_{year}_annotations.json"
      whole = {**head, "annotations": annotations[::-1]}  # another order than the questions
      scenes.save_json(folder / name, whole)
  (folder / "test2015" / coco.file_2014("test2015", 8)).unlink()


def answers(answer: str) -> list[dict]:
  """Ten annotators: seven agree, one says maybe, one no, one writes nothing like the others."""
  said = [answer] * 9 + ["café noir"]
  sure = ["yes"] * 7 + ["maybe", "no", "yes"]
  return [
    {"answer": a, "answer_confidence": s, "answer_id": k}
    for k, (a, s) in enumerate(zip(said, sure), 1)
  ]


def okvqa(folder: pathlib.Path) -> None:
  """A question for each of eight pictures a split; raw answers and lemmatised ones."""
  types = ("one", "ten", "other")
  for year, first in (("train2014", 9), ("val2014", 42)):
    ids = range(first, first + 8)
    scenes.save_scenes(folder / year, [coco.file_2014(year, i) for i in ids])
    questions, annotations = [], []
    for i, image_id in enumerate(ids):
      question, answer, _ = scenes.scene(i).questions[i % 2]
      asked = {"image_id": image_id, "question": question, "question_id": image_id * 10 + 5}
      questions.append(asked)
      annotations.append({
        "image_id": image_id, "answer_type": "other", "question_type": types[i % 3],
        "question_id": asked["question_id"], "confidence": 3,
        "answers": [
          {**a, "raw_answer": f"{a['answer']}s", "answer_confidence": s}
          for a, s in zip(answers(answer), ["yes"] * 8 + ["no"] * 2)
        ],
      })  # fmt: skip
    scenes.save_json(
      folder / f"OpenEnded_mscoco_{year}_questions.json", {"info": {}, "questions": questions}
    )
    scenes.save_json(
      folder / f"mscoco_{year}_annotations.json",
      {"annotations": annotations[::-1], "question_types": {"one": "Vehicles and Transportation"}},
    )


def aokvqa(folder: pathlib.Path) -> None:
  """A question for each of eight pictures a split; the test split has no answers."""
  for split, first in (("train", 100), ("val", 200), ("test", 300)):
    ids = range(first, first + 8)
    scenes.save_scenes(folder / f"{split}2017", [f"{i:012d}.jpg" for i in ids])
    rows = []
    for i, image_id in enumerate(ids):
      shape = scenes.scene(i).shapes[0]
      others = [c for c in scenes.COLORS if c != shape.color][:3]
      choices = [*others[: i % 4], shape.color, *others[i % 4 :]]
      row = {
        "split": split, "image_id": image_id, "question_id": f"22MexNkBPpdZGX6sxbxVBH-{image_id}",
        "question": f"What color is the {shape.kind} on the {shape.place}?", "choices": choices,
        "difficult_direct_answer": i == 3,
      }  # fmt: skip
      if split != "test":
        row |= {
          "correct_choice_idx": choices.index(shape.color),
          "direct_answers": [shape.color] * 9 + ["rosé"],
          "rationales": [f"The {shape.kind} is {shape.color}."] * 3,
        }
      rows.append(row)
    scenes.save_json(folder / f"aokvqa_v1p0_{split}.json", rows)


def tallyqa(folder: pathlib.Path) -> None:
  """Counting questions on pictures of all four folders; the test split says which are simple."""
  folders = ("VG_100K", "VG_100K_2", "train2014", "val2014")
  names = {
    i: f"{f}/{coco.file_2014(f, 40 + i) if 'COCO' in f or '2014' in f else f'{40 + i}.jpg'}"
    for i, f in enumerate(folders * 2)
  }
  scenes.save_scenes(folder, names.values())
  for split in ("train", "test"):
    rows = []
    for i, name in names.items():
      kind = scenes.scene(i).shapes[0].kind
      count = sum(s.kind == kind for s in scenes.scene(i).shapes)
      row = {
        "answer": count, "data_source": "amt" if i % 2 else "imported_vqa", "image": name,
        "image_id": 40 + i, "question": f"How many {kind}s are there?", "question_id": 1000 + i,
      }  # fmt: skip
      rows.append(row if split == "train" else {**row, "issimple": i % 3 != 0})
    scenes.save_json(folder / f"{split}.json", rows)


def gqa(folder: pathlib.Path) -> None:
  """Balanced and all questions of eight pictures; those of train_all in two files."""
  scenes.save_scenes(folder / "images", [f"{2354786 + i}.jpg" for i in range(8)])
  for split in ("train", "val", "testdev", "challenge"):
    every = {}
    for i in range(8):
      for k, (question, answer, _) in enumerate(scenes.scene(i).questions):
        row = {
          "semantic": [{"operation": "select", "dependencies": [], "argument": "shape (1)"}],
          "entailed": [], "equivalent": [], "question": question, "imageId": str(2354786 + i),
          "isBalanced": k < 2, "groups": {"global": None, "local": "10q"},
        }  # fmt: skip
        if split != "challenge":
          row |= {"answer": answer, "fullAnswer": f"The answer is {answer}."}
        every[f"0{len(split)}93{i}{k}"] = row
    balanced = {key: row for key, row in every.items() if row["isBalanced"]}
    scenes.save_json(folder / f"{split}_balanced_questions.json", balanced)
    if split != "train":
      scenes.save_json(folder / f"{split}_all_questions.json", every)
      continue
    for part in range(2):
      some = dict(list(every.items())[part::2])
      scenes.save_json(folder / f"train_all_questions/train_all_questions_{part}.json", some)
