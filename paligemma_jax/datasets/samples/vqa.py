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
