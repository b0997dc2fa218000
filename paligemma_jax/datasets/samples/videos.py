"""Miniatures of the sets of videos: scenes in which the shapes come one by one."""

import pathlib

from paligemma_jax.datasets.samples import scenes


def save_video(folder: pathlib.Path, name: str, i: int) -> None:
  """Six frames of scene i: in the first half of them only the first shape is there."""
  for k in range(6):
    shapes = scenes.scene(i).shapes
    frame = scenes.Scene(shapes[:1] if k < 3 else shapes).picture()
    scenes.save(folder / f"video/{name}/{k + 1:05d}.jpg", frame)


def msrvtt(folder: pathlib.Path) -> None:
  """Twenty captions for each of eight clips a split; one clip is gone."""
  for file, splits, first in (
    ("train_val_videodatainfo.json", ("train", "validate"), 0), ("test_videodatainfo.json", ("test",), 16),
  ):  # fmt: skip
    videos, sentences = [], []
    for n, split in enumerate(splits):
      for i in range(8):
        name = f"video{first + 8 * n + i}"
        if name != "video23":
          save_video(folder, name, i)
        videos.append({
          "id": first + 8 * n + i, "video_id": name, "category": 3, "split": split,
          "url": "https://youtu.be/x", "start time": 1.5, "end time": 11.5,
        })  # fmt: skip
        sentences += [
          {"caption": f"{scenes.scene(i).caption} {k}", "video_id": name, "sen_id": 20 * i + k}
          for k in range(20)
        ]
    scenes.save_json(folder / file, {"info": {}, "videos": videos, "sentences": sentences[::-1]})


def msrvtt_qa(folder: pathlib.Path) -> None:
  """Two questions for each of eight clips a split."""
  _questions(folder, "video")


def msvd_qa(folder: pathlib.Path) -> None:
  """Two questions for each of eight clips a split."""
  _questions(folder, "vid")


def _questions(folder, prefix):
  for n, split in enumerate(("train", "val", "test")):
    rows = []
    for i in range(8):
      number = 1 + 8 * n + i
      save_video(folder, f"{prefix}{number}", i)
      for k, (question, answer, _) in enumerate(scenes.scene(i).questions[:2]):
        rows.append({
          "id": 100 * n + 2 * i + k, "video_id": number, "category_id": 7,
          "question": question.lower(), "answer": answer,
        })  # fmt: skip
    scenes.save_json(folder / f"{split}_qa.json", rows)


def activitynet_captions(folder: pathlib.Path) -> None:
  """Two stretches of each of eight videos; one is annotated backwards, one runs over the end."""
  for n, file in enumerate(("train.json", "val_1.json", "val_2.json")):
    whole = {}
    for i in range(8):
      name = f"v_{file[:-5]}-{i:04d}"
      save_video(folder, name, i)
      scene = scenes.scene(i)
      whole[name] = {
        "duration": 12.0, "timestamps": [[6.0, 0.0] if i == 1 else [0.0, 6.0], [6.0, 12.5]],
        "sentences": [f"A {scene.shapes[0].name}. ", f" There is {scene.caption} – {n}."],
      }  # fmt: skip
    scenes.save_json(folder / file, whole)


def activitynet_qa(folder: pathlib.Path) -> None:
  """Three questions for each of eight videos a split; the answers stand in another order."""
  for split in ("train", "val", "test"):
    asked, given = [], []
    for i in range(8):
      save_video(folder, f"v_{split}{i}", i)
      for k, (question, answer, _) in enumerate(scenes.scene(i).questions):
        number = f"v_{split}{i}_{k}"
        asked.append({"video_name": f"{split}{i}", "question": question, "question_id": number})
        given.append({"answer": answer, "type": 3 + k, "question_id": number})
    scenes.save_json(folder / f"{split}_q.json", asked)
    scenes.save_json(folder / f"{split}_a.json", given[::-1])


def vatex(folder: pathlib.Path) -> None:
  """Ten captions for each of eight clips a split."""
  for split, file in (
    ("a", "vatex_training_v1.0.json"), ("b", "vatex_validation_v1.0.json"),
    ("c", "vatex_public_test_english_v1.1.json"),
  ):  # fmt: skip
    rows = []
    for i in range(8):
      name = f"{split}f_2VRj-V{i}_000122_000132"
      save_video(folder, name, i)
      row = {"videoID": name, "enCap": [f"{scenes.scene(i).caption} {k}" for k in range(10)]}
      rows.append(row if split == "c" else {**row, "chCap": ["一个圆"]})
    scenes.save_json(folder / file, rows)
