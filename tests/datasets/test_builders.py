"""Every builder on its miniature: what is made of it, split by split, and what becomes of its quirks."""

import io

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import stores
from paligemma_jax.datasets import samples, tasks, write
from paligemma_jax.datasets.samples import documents, scenes

# Data set -> records of each split of the miniature, and the features of the reference's builder
# (or of its configs, where that is not published).
MADE = {
  "vqa": (
    "train 24, validation 24, test 21, test-dev 21",
    "answer_confidences answer_type answers image image/filename image/id question_id question_text"
    " question_type top_answer",
  ),
  "okvqa": (
    "train 8, val 8",
    "answer_type answers answers_confidence answers_raw image image_id question question_id"
    " question_type question_type_readable",
  ),
  "aokvqa": (
    "train 8, val 8, test 8",
    "answer_rationales direct_answer_is_difficult direct_answers image image_id"
    " multiple_choice_correct_idx multiple_choice_possible_answers question question_id",
  ),
  "textvqa": (
    "train 8, val 8, test 8",
    "answers image image/id image_filepath question question_id",
  ),
  "text_caps": ("train 8, val 8, test 8", "image image/id image_filepath texts"),
  "vizwizvqa": (
    "train 8, val 8, test 8",
    "answer_confidences answerable answers image image/filename question question_id",
  ),
  "tallyqa": (
    "train 8, test 8",
    "answer image image_id image_source issimple question question_id",
  ),
  "gqa": (
    "train_balanced 16, val_balanced 16, testdev_balanced 16, challenge_balanced 16,"
    " train_all 24, val_all 24, testdev_all 24, challenge_all 24",
    "answer example_id full_answer image image/id is_balanced question",
  ),
  "docvqa": ("train 8, val 8, test 8", "answers image image/filename question question_id"),
  "chartqa/human": ("train 8, val 8, test 8", "answer image image/filename question question_id"),
  "chartqa/augmented": ("train 8, val 8, test 8", "answer image image/filename question question_id"),
  "science_qa": (
    "train 8, val 8, test 8",
    "answer category choices grade hint image indexed_answer indexed_choices lecture question skill"
    " solution subject task topic",
  ),
  "ai2d": (
    "train 16, test 8",
    "abc_label answer id image image_name label possible_answers question",
  ),
}  # fmt: skip
DATASETS = {
  data.name: (task, data) for task in tasks.TASKS for data in tasks.module(task).TASK.datasets
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """made(name) -> the line of its build; made.read(name, split) -> its records by key feature."""

  class Made:
    out, raws, lines = tmp_path_factory.mktemp("made"), {}, {}

    def raw(self, task):
      if task not in self.raws:
        self.raws[task] = tmp_path_factory.mktemp("raw")
        samples.write(task, self.raws[task])
      return self.raws[task]

    def __call__(self, name):
      task, data = DATASETS[name]
      if name not in self.lines:
        about, raw = tasks.module(task).TASK, self.raw(task)
        self.lines[name] = write.build(data, about, raw, self.out, say=lambda line: None)
      return self.lines[name]

    def read(self, name, split, **settings):
      self(name)
      return [*stores.Tfds(name, split, data_dir=str(self.out), **settings)]

  return Made()


def pixels(data: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_every_data_set_has_its_line_in_the_table():
  assert set(MADE) == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_the_miniature_becomes_the_data_set_that_the_configs_read(made, name):
  import tensorflow_datasets as tfds

  counts, features = MADE[name]
  assert made(name).endswith(f"{name}/{DATASETS[name][1].version}: {counts}")
  info = tfds.builder_from_directory(made(name).rpartition(": ")[0]).info
  assert sorted(info.features) == features.split()
  for split, wanted in DATASETS[name][1].sizes.items():
    assert wanted is None or wanted > info.splits[split].num_examples


def test_vqa_joins_questions_and_answers_and_keeps_confidences(made):
  rows = {r["question_id"]: r for r in made.read("vqa", "train")}
  first = rows[9000]
  assert first["question_text"] == "¿De qué color es? What color is the circle on the left?"
  assert first["answers"] == ["red"] * 9 + ["café noir"]
  assert first["answer_confidences"][6:] == ["yes", "maybe", "no", "yes"]
  assert (first["top_answer"], first["answer_type"]) == ("red", "other")
  assert first["image/filename"] == "COCO_train2014_000000000009.jpg"
  for r in made.read("vqa", "test+test-dev"):
    assert (r["answers"], r["top_answer"], r["question_type"]) == ([], "", "")
    assert r["image/id"] != 8  # its picture is missing


def test_pictures_are_as_pillow_decodes_them_though_exif_would_turn_them(made):
  folder = made.raw("vqav2") / "train2014"
  for r in made.read("vqa", "train"):
    want = np.asarray(Image.open(folder / r["image/filename"]).convert("RGB"))
    np.testing.assert_array_equal(pixels(r["image"]), want)
    assert Image.open(io.BytesIO(r["image"])).getexif().get(0x0112, 1) == 1


def test_okvqa_tells_raw_answers_from_lemmatised_ones(made):
  first = next(r for r in made.read("okvqa", "train") if r["question_id"] == 95)
  assert first["answers"][0] == "red" and first["answers_raw"][0] == "reds"
  assert first["answers_confidence"] == [True] * 8 + [False] * 2
  assert first["question_type_readable"] == "Vehicles and Transportation"


def test_aokvqa_has_no_answers_in_the_test_split(made):
  for r in made.read("aokvqa", "train+val"):
    right = r["multiple_choice_possible_answers"][r["multiple_choice_correct_idx"]]
    assert r["direct_answers"][0] == right and len(r["answer_rationales"]) == 3
  for r in made.read("aokvqa", "test"):
    assert r["multiple_choice_correct_idx"] == -1
    assert r["direct_answers"] == r["answer_rationales"] == []
  assert sum(r["direct_answer_is_difficult"] for r in made.read("aokvqa", "test")) == 1


def test_textvqa_turns_photos_upright_and_leaves_the_others_as_they_are(made):
  rows = {r["question_id"] - 34602: r for r in made.read("textvqa", "train")}
  for i, r in rows.items():
    assert pixels(r["image"]).shape == (60, 120, 3)
    file = made.raw("textvqa") / r["image_filepath"]
    assert (r["image"] == file.read_bytes()) == (i not in (2, 3, 4))  # 4 has EXIF to lose
    assert np.abs(pixels(r["image"]).astype(int) - np.asarray(documents.sign(i))).mean() < 16
  assert rows[0]["answers"] == ["stop"] * 9 + [""]


def test_textcaps_groups_the_captions_of_a_photo(made):
  rows = {r["image/id"]: r for r in made.read("text_caps", "train")}
  assert rows[f"{1:016x}"]["texts"] == ["A board that says café.", "the text café on white"]
  assert rows[f"{5:016x}"]["texts"] == ["A board that says EXIT."]  # the other one is empty
  assert all(r["texts"] == [] for r in made.read("text_caps", "test"))


def test_vizwiz_drops_empty_answers(made):
  rows = {r["question_id"]: r for r in made.read("vizwizvqa", "val")}
  assert rows[0]["answers"] == ["stop"] * 8 + ["sign"]
  assert rows[0]["answer_confidences"] == ["yes"] * 8 + ["no"]
  assert [rows[i]["answerable"] for i in (0, 7)] == [1, 0]
  assert {r["answerable"] for r in made.read("vizwizvqa", "test")} == {-1}


def test_tallyqa_finds_its_photos_in_four_folders(made):
  assert {r["issimple"] for r in made.read("tallyqa", "train")} == {-1}
  rows = {r["image_id"] - 40: r for r in made.read("tallyqa", "test")}
  assert [rows[i]["issimple"] for i in range(4)] == [0, 1, 1, 0]
  assert rows[0]["image_source"] == "imported_vqa"


def test_gqa_reads_all_training_questions_from_their_pieces(made):
  assert len({r["example_id"] for r in made.read("gqa", "train_all")}) == 24
  assert {r["answer"] for r in made.read("gqa", "challenge_all")} == {""}
  assert sum(r["is_balanced"] for r in made.read("gqa", "val_all")) == 16


def test_gqa_is_built_from_the_files_that_are_there(made, tmp_path):
  samples.write("gqa", tmp_path)
  for path in tmp_path.glob("*_all_questions.json"):
    path.unlink()
  task, said = tasks.module("gqa").TASK, []
  line = write.build(task.datasets[0], task, tmp_path, tmp_path / "out", say=said.append)
  assert "val_balanced 16" in line and "val_all" not in line
  assert any("val_all left out" in s for s in said)


def test_docvqa_keeps_the_case_of_answers(made):
  rows = {r["question_id"]: r for r in made.read("docvqa", "train")}
  assert rows[0]["answers"] == ["May 1, 1987"] and rows[1]["answers"] == ["$17.50", "17.50"]
  assert pixels(rows[0]["image"]).shape[1] == 160


def test_science_qa_leaves_out_what_has_no_picture(made):
  rows = made.read("science_qa", "val")
  assert len(rows) == 8
  for r in rows:
    letter = "ABCDE"[r["answer"]]
    assert r["indexed_answer"] == letter
    assert f"({letter}) {r['choices'][r['answer']]}" in r["indexed_choices"]
  assert {r["hint"] for r in rows} == {"N/A", "Look at the shape’s inside."}


def test_ai2d_draws_letters_over_texts_where_the_answers_are_letters(made):
  rows = {r["id"]: r for r in made.read("ai2d", "train")}
  file = made.raw("ai2d") / "ai2d/images/8.png"
  lettered, plain = rows["8.png-0"], rows["8.png-1"]
  assert (lettered["abc_label"], lettered["answer"]) == (True, "A")
  assert plain["image"] == file.read_bytes()
  before, after = pixels(plain["image"]), pixels(lettered["image"])
  np.testing.assert_array_equal(before[:52], after[:52])  # the shapes
  assert not np.array_equal(before[52:], after[52:])
  assert (after[53:, 37:64] == 255).any() and (
    after[53:, 37:64] < 128
  ).any()  # box that runs backwards
  ids = {r["image_name"] for r in made.read("ai2d", "test")}
  assert ids == {"0.gif.png", "3.png", "5.png", "11.png"}


def remove(name):
  return lambda folder: next(iter(sorted(folder.glob(name)))).unlink()


def edit(name, old, new):
  def change(folder):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))

  return change


VQA = "v2_mscoco_train2014_annotations.json"
WRONG = [
  ("vqav2", remove(VQA), [f"{VQA}: no such file"]),
  ("vqav2", remove("train2014/*"), ["train2014_questions.json: questions[0]", "no picture", "009.jpg"]),
  ("vqav2", edit(VQA, '"question_id": 9000', '"question_id": 1'), ["questions[0]", VQA, "9000"]),
  ("vqav2", edit(VQA, '"image_id": 16', '"image_id": 17'), ["picture 16", "about 17"]),
  ("vqav2", edit(VQA, "multiple_choice_answer", "answer"), ["no key 'multiple_choice_answer'"]),
  ("okvqa", edit("mscoco_val2014_annotations.json", '"ten"', '"eleven"'), ["no key 'eleven'"]),
  ("textvqa", edit("test_images/rotation.csv", f"{16:016x}", "x"), ["data[0]", "rotation.csv", "no row"]),
  ("textvqa", edit("test_images/rotation.csv", "90.0", "45.0"), ["rotation.csv: row 4", "45"]),
  ("textcaps", remove("train_images/*.jpg"), ["TextCaps_0.1_train.json: image_id 0000", "no picture"]),
  ("tallyqa", edit("train.json", "VG_100K_2/", "VG_100K_3/"), ['"VG_100K_3/41.jpg" is in none of']),
  ("gqa", edit("val_balanced_questions.json", '"imageId"', '"image"'), ["val_balanced", "'imageId'"]),
  ("docvqa", remove("train/documents/*"), ["train_v1.0_withQT.json: data[0]", "xnbl0000_1.png"]),
  ("chartqa", remove("ChartQA Dataset/val/val_human.json"), ["val_human.json: no such file"]),
  ("science_qa", edit("data/scienceqa/pid_splits.json", '"0"', '"1"'), ['problems.json: ["0"]', "pid_"]),
  ("science_qa", edit("data/scienceqa/pid_splits.json", '"0"', '"0", "77"'), ["lists 77"]),
  ("ai2d", remove("ai2d/annotations/*"), ["ai2d/questions/0.gif.png.json", "annotations/0.gif.png.json"]),
]  # fmt: skip


@pytest.mark.parametrize(
  "task, damage, words", WRONG, ids=lambda v: v if isinstance(v, str) else ""
)
def test_what_is_wrong_is_named_with_both_sides_and_nothing_is_left(tmp_path, task, damage, words):
  samples.write(task, tmp_path / "raw")
  damage(tmp_path / "raw")
  about = tasks.module(task).TASK
  with pytest.raises(errors.UserError) as e:
    for data in about.datasets:
      write.build(data, about, tmp_path / "raw", tmp_path / "out", say=lambda line: None)
  for word in words:
    assert word in str(e.value)
  assert "\n" not in str(e.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("i", range(12))
def test_answers_about_a_scene_are_true_of_its_picture(i):
  scene = scenes.scene(i)
  found = np.asarray(scene.picture())
  for shape in scene.shapes:
    x0, y0, x1, y1 = shape.box
    middle = found[(y0 + y1) // 2, (x0 + x1) // 2]
    assert tuple(middle) == Image.new("RGB", (1, 1), shape.color).getpixel((0, 0))
    assert x1 <= found.shape[1] and y1 <= found.shape[0]
  (color, answer, _), (_, count, _), (_, is_there, _) = scene.questions
  assert answer == scene.shapes[0].color and int(count) == len(scene.shapes)
  assert (is_there == "yes") == (len({s.kind for s in scene.shapes}) == 3)
