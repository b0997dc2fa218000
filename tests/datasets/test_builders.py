"""Every builder on its miniature: what is made of it, split by split, and what becomes of its quirks."""

import io

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import stores
from paligemma_jax.datasets import raw, samples, tasks, video, write
from paligemma_jax.datasets.samples import documents, scenes

LANGUAGES = (
  "ar bn cs da de el en es fa fi fil fr he hi hr hu id it ja ko mi nl no pl pt ro ru sv sw te th tr"
  " uk vi zh"
)
REFERRED = "coco_url file_name flickr_url height id image license objects width"
AERIAL = "answers filename image question question_id question_type raw_answers"
FIGURES = (
  "caption/lowercase_and_token_and_remove_figure_index caption/normalized/advanced_equation_bracket"
  " caption/normalized/basic_num caption/originally_extracted image image/filename image/id"
)
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
  "ref_coco_bv/refcoco_unc": (
    "train 5, train_flat 12, validation 1, validation_flat 3, testA 1, testA_flat 3, testB 1,"
    " testB_flat 2",
    REFERRED,
  ),
  "ref_coco_bv/refcoco_google": (
    "train 2, train_flat 5, validation 1, validation_flat 3, test 1, test_flat 1", REFERRED
  ),
  "ref_coco_bv/refcocoplus_unc": (
    "train 3, train_flat 8, validation 1, validation_flat 3, testA 1, testA_flat 3, testB 1,"
    " testB_flat 1",
    REFERRED,
  ),
  "ref_coco_bv/refcocog_google": ("train 2, train_flat 5, validation 1, validation_flat 3", REFERRED),
  "ref_coco_bv/refcocog_umd": (
    "train 6, train_flat 16, validation 2, validation_flat 2, test 2, test_flat 6", REFERRED
  ),
  "ref_coco_bv/refcocox_combined": (
    "train 2, train_flat 12, validation 4, validation_flat 8, test 5, test_flat 15", REFERRED
  ),
  "coco_captions/2014": (
    "train 8, restval 8, val 8, test 8", "captions image image/filename image/id objects"
  ),
  "coco/2017": ("train 8, validation 8, test 8", "image image/filename image/id objects"),
  "coco35l": (
    ", ".join(f"{part}_{lang} 8" for part in ("train", "dev") for lang in LANGUAGES.split()),
    "captions image image/id language",
  ),
  "nocaps": ("val 6, test 6", "image image/id image_filepath texts url"),
  "xm3600": (
    ", ".join(f"{lang} 8" for lang in sorted([*LANGUAGES.split(), "quz"])),
    "captions captions/tokenized image image/id language",
  ),
  "xgqa": (
    "test_zs_bn 8, test_zs_de 8, test_zs_en 8, test_zs_id 8, test_zs_ko 8, test_zs_pt 8,"
    " test_zs_ru 8, test_zs_zh 8, test_fs_de 4, dev_fs_de 3, train_fs1_de 7, train_fs48_de 8",
    "answer example_id image image/id question",
  ),
  **dict.fromkeys(
    ["pope/pope_random", "pope/pope_popular", "pope/pope_adversarial"],
    ("test 18", "answer image image/filename question question_id thing"),
  ),
  "countbenchqa": ("huggingface 8", "image image_id image_url number question text"),
  "infovqa": ("train 8, val 8, test 8", "answers filename image question question_id"),
  "stvqa": ("train 36, val 4, test 40", "answers filename image question question_id"),
  "ocrvqa_id": ("train 24, val 24, test 21", "answer image image/id int_id question"),
  "rsvqa_lr/nonum": ("train 23, val 23, test 23", AERIAL),
  "rsvqa_lr/all": ("train 31, val 31, test 31", AERIAL),
  "rsvqa_hr/nonum": ("train 15, val 15, test 15, test_2 15", AERIAL),
  "rsvqa_hr/all": ("train 31, val 31, test 31, test_2 31", AERIAL),
  **{
    f"scicap/{subset}_subfig_{subfig}": (f"train {n}, val {n}, test {n}", FIGURES)
    for subset, n in (("leq_100_tokens", 8), ("first_sentence", 7), ("single_sentence", 6))
    for subfig in ("no", "yes")
  },
  "screen2_words": ("train 8, dev 8, test 8", "image image/filename image/id summary"),
  "widgetcap": (
    "train 15, dev 15, test 15",
    "bbox height image image/filename image/id node_id screen_id texts width",
  ),
  "nlvr2": ("train 16, dev 16, test 16", "example_id image_left image_right label sentence"),
  "marvl": (
    "test_id 8, test_sw 8, test_ta 8, test_tr 8, test_zh 8",
    "example_id image_left image_right label sentence",
  ),
  "mmvp": ("test 8", "answer image options pair question question_id"),
  "msrvtt": ("train 8, valid 8, test 7", "caption/string example/video_id frames"),
  **dict.fromkeys(
    ["msrvtt_qa", "msvd_qa"],
    ("train 16, valid 16, test 16", "answer example/video_id frames id question"),
  ),
  "activitynet_captions_mr": (
    "train 16, valid 16, test 16", "caption/string example/video_id frames id"
  ),
  "activitynet_qa": (
    "train 24, valid 24, test 24", "answer example/video_id frames id question type"
  ),
  "vatex": ("train 8, valid 8, test 8", "caption/string example/video_id frames"),
  "doclaynet": ("train 8, validation 8, test 8", "image image/filename image/id objects"),
  "docci": (
    "train 8, test 8, qual_dev 8, qual_test 8", "description example_id image image/filename"
  ),
  **dict.fromkeys(
    ["vsr/zeroshot", "vsr/random"],
    ("train 8, dev 8, test 8", "answer caption image image/filename relation"),
  ),
  "pubtabnet": ("train 8, val 8", "cells filename image structure"),
  "fintabnet": ("train 8, val 8, test 8", "cells filename image structure"),
  **dict.fromkeys(["icdar15", "total_text"], ("train 8, test 8", "image image/id words")),
  **dict.fromkeys(
    ["mlt17", "hiertext", "textocr", "intelocr"], ("train 8, validation 8", "image image/id words")
  ),
  "mlt19": ("train 8", "image image/id words"),
  **dict.fromkeys(
    ["grandstaff/clean", "grandstaff/distorted"],
    ("train 8, validation 8, test 8", "example_id image kern"),
  ),
  "molecule": ("train 8, test 8", "filename image smiles"),
  "mimic_cxr": (
    "train 8, validate 8, test 8", "dicom_id image indication report study_id"
  ),
  "objaverse": ("train 33, test 6", "category frames uid"),
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
  for split, found in info.splits.items():
    assert (DATASETS[name][1].sizes[split] or 10**6) > found.num_examples


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


def test_a_broken_picture_is_left_out_where_there_are_no_answers(tmp_path):
  samples.write("vizwizvqa", tmp_path)
  cut("test/VizWiz_test_00000002.jpg")(tmp_path)
  (tmp_path / "test/VizWiz_test_00000003.jpg").unlink()
  task, said = tasks.module("vizwizvqa").TASK, []
  line = write.build(task.datasets[0], task, tmp_path, tmp_path / "out", say=said.append)
  assert line.endswith("train 8, val 8, test 6")
  assert "vizwizvqa: 2 records of test left out, no picture" in said


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
  assert any("left out: val_all, testdev_all, challenge_all" in s for s in said)


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


def referred(made, name, split):
  """Photo -> annotation -> its sentences, boxes in pixels and masks."""
  fields = (
    ("objects/box", "objects/bbox"), ("objects/mask", "objects/mask"),
    ("objects/sentences", "objects/refs/sentence"), ("ann", "objects/id"),
  )  # fmt: skip
  found = {}
  for r in made.read(f"ref_coco_bv/{name}", split, fields=fields):
    found.setdefault(r["id"], {}).update(zip(r["ann"], r["objects"]))
  return found


def test_refcoco_has_boxes_masks_and_phrases_of_every_object(made):
  found = referred(made, "refcocog_umd", "train")
  for image_id, objects in found.items():
    for number, thing in objects.items():
      shape = scenes.scene(image_id - 1).shapes[number % 100]
      np.testing.assert_allclose(thing["box"], shape.box, atol=1e-4)  # one is annotated backwards
      mask = pixels(thing["mask"])
      assert set(np.unique(mask)) == {0, 255} and mask.shape == (48, 96, 3)
      x0, y0, x1, y1 = shape.box
      assert mask[(y0 + y1) // 2, (x0 + x1) // 2].all()
      assert not mask[:y0].any() and not mask[:, :x0].any() and not mask[y1:].any()
      assert thing["sentences"][0] == shape.name


def test_refcoco_trains_on_no_photo_that_any_of_the_three_evaluates_on(made):
  combined = {
    s: set(referred(made, "refcocox_combined", s)) for s in ("train", "validation", "test")
  }
  every = {}
  for name in ("refcocog_umd", "refcoco_unc", "refcocoplus_unc"):
    for split in DATASETS[f"ref_coco_bv/{name}"][1].sizes:
      kind = {"testA": "test", "testB": "test"}.get(split, split)
      if not split.endswith("flat"):
        every.setdefault(kind, set()).update(referred(made, name, split))
  assert combined["validation"] == every["validation"] and combined["test"] == every["test"]
  assert combined["train"] == every["train"] - every["validation"] - every["test"] == {1, 8}


def test_refcoco_merges_what_is_said_of_one_object_and_unrolls_it_in_flat_splits(made):
  whole = referred(made, "refcocox_combined", "train")[1][100]["sentences"]
  assert whole == ["red circle", "the circle on the left"] * 3
  flat = made.read("ref_coco_bv/refcocox_combined", "train_flat")
  assert len(flat) == sum(
    len(o["sentences"])
    for photo in referred(made, "refcocox_combined", "train").values()
    for o in photo.values()
  )
  assert all(len(r["objects"]["id"]) == 1 for r in flat)


def test_captions_of_coco_keep_their_blanks_and_bring_the_objects(made):
  made("coco_captions/2014")  # which TFDS finds without the config
  found = stores.Tfds("coco_captions", "train", data_dir=str(made.out))
  rows = {r["image/id"]: r for r in found}
  assert rows[9]["captions"]["text"][0] == "a red circle "
  assert rows[9]["captions"]["text"][3] == "1 shapes à la Mondrian: a red circle"
  assert rows[9]["objects"]["label"] == ["sports ball"]


def test_coco_detection_clips_boxes_and_leaves_out_empty_ones(made):
  fields = (("objects/box", "objects/bbox"), ("objects/iscrowd", "objects/is_crowd"))
  rows = {r["image/id"]: r["objects"] for r in made.read("coco/2017", "train", fields=fields)}
  assert rows[8] == []  # a photo without any
  found = [np.round(o["box"]).tolist() for o in rows[1]]
  assert found == [[2, 4, 22, 24], [80, 30, 96, 48], [0, 0, 96, 20]]
  assert [o["iscrowd"] for o in rows[1]] == [False, False, True]
  assert all(r["objects"]["id"] == [] for r in made.read("coco/2017", "test"))


def test_nocaps_leaves_out_photos_that_are_missing_or_cut_off(made):
  assert {r["image/id"] for r in made.read("nocaps", "val")} == {0, 1, 2, 3, 4, 5}
  assert all(len(r["texts"]) == 10 for r in made.read("nocaps", "val"))
  assert all(r["texts"] == ["N/A"] for r in made.read("nocaps", "test"))


def test_coco35l_takes_english_from_the_source_of_another_language(made):
  rows = {r["image/id"]: r["captions"] for r in made.read("coco35l", "train_en+train_fr+train_th")}
  assert rows["9_en"] == ["a red circle .", "a red circle .."]
  assert rows["12_fr"] == []  # the photo is there, without a caption
  assert rows["9_th"][0] == "รูปภาพ a red circle ."
  assert len(made.read("coco35l", "dev_de")) == 8  # packed


def test_xm3600_has_one_caption_in_bengali_and_more_elsewhere(made):
  assert {len(r["captions"]) for r in made.read("xm3600", "bn")} == {1}
  first = next(r for r in made.read("xm3600", "quz") if r["image/id"] == f"{0:016x}_quz")
  assert first["captions"] == ["quz: a red circle", "quz: a red circle!"]
  assert first["captions/tokenized"][1] == "quz: a red circle !"


def test_xgqa_asks_in_one_language_and_answers_in_english(made):
  rows = {r["example_id"]: r for r in made.read("xgqa", "test_zs_zh")}
  assert rows["20220_zh"]["question"].startswith("这是什么？")
  assert rows["20220_zh"]["answer"] == "red" and rows["20220_zh"]["image/id"] == "2354786"


def test_pope_numbers_its_lines_and_names_the_thing(made):
  rows = {r["question_id"]: r for r in made.read("pope/pope_random", "test")}
  assert sorted(rows) == [*range(18)]
  assert (rows[0]["thing"], rows[0]["answer"]) == ("circle", "yes")
  assert (rows[3]["thing"], rows[3]["answer"]) == ("octagon", "no")


def test_countbenchqa_leaves_out_rows_without_a_color_picture(made):
  rows = {r["image_id"]: r for r in made.read("countbenchqa", "huggingface")}
  assert sorted(rows) == [0, 1, 3, 5, 6, 7, 8, 9]
  assert rows[1]["number"] == 2 and "joli" in rows[1]["text"]


def test_infovqa_permutes_lists_in_val_only(made):
  rows = {r["question_id"]: r["answers"] for r in made.read("infovqa", "train+val")}
  assert rows[2] == ["Green, Yellow, Black"]
  assert rows[1002][0] == "Green, Yellow, Black" and len(set(rows[1002])) == 6


def test_stvqa_holds_photos_out_and_takes_those_of_coco_from_coco(made):
  names = {s: {r["filename"] for r in made.read("stvqa", s)} for s in ("train", "val")}
  assert names["train"] and names["val"] and not names["train"] & names["val"]
  coco = [r for r in made.read("stvqa", "test") if r["filename"].startswith("coco-text/")]
  name = coco[0]["filename"].replace("coco-text", "train2014")
  assert coco[0]["image"] == (made.raw("stvqa") / name).read_bytes()


def test_ocrvqa_has_a_number_for_every_question_of_the_file(made):
  rows = made.read("ocrvqa_id", "train+val+test")
  assert len({r["int_id"] for r in rows}) == len(rows) == 69
  first = next(r for r in rows if r["int_id"] == 0)
  assert (first["question"], first["answer"]) == ("Who wrote this book?", "Red O'Neill")


def test_rsvqa_puts_numbers_into_ranges_and_skips_what_is_not_active(made):
  counts = [r for r in made.read("rsvqa_lr/all", "train") if r["question_type"] == "count"]
  assert {r["raw_answers"][0]: r["answers"][0] for r in counts} == {
    "0": "0", "7": "between 1 and 10", "3": "between 1 and 10", "10": "between 1 and 10",
    "11": "between 11 and 100", "500": "between 101 and 1000", "1000": "between 101 and 1000",
    "1001": "more than 1000",
  }  # fmt: skip
  areas = [r for r in made.read("rsvqa_hr/all", "test_2") if r["question_type"] == "area"]
  found = {r["raw_answers"][0]: r["answers"][0] for r in areas}
  assert (found["0m2"], found["11m2"]) == ("0 m2", "between 11 m2 and 100 m2")
  kinds = {r["question_type"] for r in made.read("rsvqa_lr/nonum", "train")}
  assert kinds == {"rural_urban", "presence", "comp"}
  tile = made.read("rsvqa_lr/nonum", "train")[0]
  want = np.asarray(Image.open(made.raw("rsvqa_lr") / "Images_LR" / tile["filename"]))
  np.testing.assert_array_equal(pixels(tile["image"]), want)


def test_scicap_has_four_spellings_of_a_caption(made):
  r = next(
    r for r in made.read("scicap/first_sentence_subfig_no", "train") if "-Figure1" in r["image/id"]
  )
  assert r["caption/originally_extracted"] == "Figure 1: The green bar reaches 39 (α = 0.05)."
  assert (
    r["caption/normalized/advanced_equation_bracket"] == "the green bar reaches 39 BRACKET-TK ."
  )


def test_screen2words_gathers_the_summaries_of_a_screen(made):
  r = next(r for r in made.read("screen2_words", "train") if r["image/id"] == 100)
  assert r["summary"] == [f'screen, "{k}", a red circle' for k in range(5)]


def test_widgetcap_finds_the_element_in_the_view_hierarchy(made):
  r = next(r for r in made.read("widgetcap", "train") if r["image/id"] == "102_0.1.1")
  shape = scenes.scene(2).shapes[1]
  y0, x0, y1, x1 = np.array(r["bbox"]) * [48, 96, 48, 96]
  np.testing.assert_allclose((x0, y0, x1, y1), shape.box, atol=1e-4)
  assert r["texts"] == [shape.name, f"the {shape.kind} on the {shape.place}", "naïve"]


def test_nlvr2_and_marvl_have_two_pictures_and_true_or_false(made):
  fields = (("image", "image_left"), ("image", "image_right"))
  for name, split in (("nlvr2", "train"), ("marvl", "test_ta")):
    for r in made.read(name, split, fields=fields):
      assert len(r["image"]) == 2 and r["label"] in ("True", "False")
  r = next(
    r for r in made.read("nlvr2", "dev", fields=fields) if r["example_id"] == "dev-10173-0-0"
  )
  assert r["image"][1].startswith(b"\xff\xd8")  # JPEG under the name of a PNG


def test_mmvp_takes_the_text_of_the_right_option_and_keeps_pairs(made):
  rows = {r["question_id"]: r for r in made.read("mmvp", "test")}
  assert [rows[i]["pair"] for i in (1, 2, 3, 8)] == [0, 0, 1, 3]
  for i, r in rows.items():
    assert r["answer"] in r["options"]
    assert scenes.scene(3 * (i - 1)).shapes[0].color in r["answer"].lower()


FRAMES = dict(fields=(("image", "frames"),), max_images=9)


def test_videos_come_as_their_frames_in_order(made):
  rows = {r["example/video_id"]: r for r in made.read("msrvtt", "train", **FRAMES)}
  folder = made.raw("msrvtt_cap") / "video/video2"
  assert rows["video2"]["image"] == [p.read_bytes() for p in sorted(folder.iterdir())]
  assert sorted(rows["video2"]["caption/string"]) == sorted(
    f"{scenes.scene(2).caption} {k}" for k in range(20)
  )
  assert "video23" not in {r["example/video_id"] for r in made.read("msrvtt", "test", **FRAMES)}
  assert {len(r["caption/string"]) for r in made.read("vatex", "valid", **FRAMES)} == {10}


def test_questions_about_videos(made):
  rows = {r["id"]: r for r in made.read("msvd_qa", "valid", **FRAMES)}
  assert rows["102"]["example/video_id"] == "vid10" and rows["103"]["answer"] == "2"
  rows = {r["id"]: r for r in made.read("activitynet_qa", "test", **FRAMES)}
  assert (rows["v_test0_0"]["answer"], rows["v_test0_2"]["type"]) == ("red", 5)


def test_a_stretch_of_a_video_has_the_frames_of_its_time(made):
  rows = {r["id"]: r for r in made.read("activitynet_captions_mr", "train", **FRAMES)}
  files = sorted((made.raw("activitynet_cap") / "video/v_train-0001").iterdir())
  backwards, over = rows["v_train-0001[6.0-0.0]"], rows["v_train-0001[6.0-12.5]"]
  assert backwards["image"] == [p.read_bytes() for p in files[:3]]
  assert over["image"] == [p.read_bytes() for p in files[3:]]
  assert backwards["caption/string"] == "A blue triangle."


def test_a_video_file_is_taken_apart_by_ffmpeg(tmp_path, monkeypatch):
  (tmp_path / "video").mkdir()
  (tmp_path / "video/video0.mp4").write_bytes(b"film")
  clip = video.clip(raw.Folder(tmp_path), "video0", 0.5, 1.0, seconds=8.0)
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(errors.UserError, match="video0.mp4: ffmpeg.* is not installed; extract"):
    clip.probe()
  tool = tmp_path / "ffmpeg"  # stands in: writes its arguments as the only frame
  tool.write_text('#!/bin/sh\nfor out; do :; done\necho "$@" > "${out%/*}/000001.jpg"\n')
  tool.chmod(0o755)
  clip.probe()
  (frame,) = clip.read()
  assert b"-ss 4.0 -to 8.0 -i " in frame and b"video/video0.mp4" in frame


def test_doclaynet_names_its_parts_and_clips_their_boxes(made):
  fields = (("objects/box", "objects/bbox"), ("objects/label", "objects/label"))
  rows = {r["image/id"]: r["objects"] for r in made.read("doclaynet", "train", fields=fields)}
  assert [(o["label"], np.round(o["box"]).tolist()) for o in rows[0]] == [
    ("Text", [10, 26, 70, 58]), ("Picture", [90, 20, 160, 60]), ("Title", [10, 10, 50, 22]),
  ]  # fmt: skip
  assert rows[7] == []


def test_docci_and_vsr_keep_texts_as_they_are(made):
  rows = {r["example_id"]: r for r in made.read("docci", "qual_test")}
  assert rows["qual_test_00000"]["description"].endswith("is on the left. It’s flat.")
  rows = {r["image/filename"]: r for r in made.read("vsr/zeroshot", "test")}
  assert rows[f"{40:012d}.jpg"]["answer"] == "False" and rows[f"{41:012d}.jpg"]["answer"] == "True"


@pytest.mark.parametrize("name", ["pubtabnet", "fintabnet"])
def test_tables_have_the_boxes_of_their_cells_in_their_own_picture(made, name):
  fields = (("objects/box", "cells/bbox"), ("objects/label", "cells/text"))
  r = made.read(name, "val", fields=fields)[0]
  assert pixels(r["image"]).shape == (60, 120, 3)
  assert r["structure"].count("<td>") == 4 == len(r["objects"])
  assert [o["label"] for o in r["objects"]][:3] == ["<b>année</b>", "", "total"]
  assert np.round(r["objects"][0]["box"]).tolist() == [4, 4, 60, 16]
  assert r["objects"][1]["box"] == [0, 0, 0, 0]
  assert (pixels(r["image"])[4:16, 4:60] < 128).any()


@pytest.mark.parametrize(
  "name", ["icdar15", "total_text", "mlt17", "mlt19", "hiertext", "textocr", "intelocr"]
)
def test_words_in_photos_have_the_box_around_their_polygon(made, name):
  fields = (("objects/box", "words/bbox"), ("objects/label", "words/text"))
  rows = made.read(name, "train", fields=fields)
  for r in rows:
    (word,) = r["objects"]  # the illegible one is left out
    assert np.round(word["box"]).tolist() == [10, 15, 110, 45]
  ending = ", ok" if name == "icdar15" else ""
  assert {r["objects"][0]["label"] for r in rows} == {f"{w}{ending}" for w in documents.WORDS}


def test_music_molecules_and_reports(made):
  rows = {r["example_id"]: r for r in made.read("grandstaff/distorted", "test")}
  first = rows["grandstaff/mozart/test/maj2_m-1-6"]
  assert first["kern"] == "**kern\n*clefG2\n4f\n4a\n*-"
  assert {r["filename"]: r["smiles"] for r in made.read("molecule", "test")}[
    "test/3.png"
  ] == "CCCCC"
  rows = {r["dicom_id"]: r for r in made.read("mimic_cxr", "train")}
  assert rows["02aa000"]["indication"] == "INDICATION: ___F with cough"
  assert rows["02aa030"]["report"] == "IMPRESSION: No acute process."
  assert "02aa050" not in rows and rows["02aa010"]["report"] == rows["02aa011"]["report"]


def test_objaverse_holds_things_out_with_all_their_views(made):
  rows = {s: made.read("objaverse", s, **FRAMES) for s in ("train", "test")}
  assert not {r["uid"] for r in rows["train"]} & {r["uid"] for r in rows["test"]}
  assert {len(r["image"]) for r in rows["train"]} == {8}
  assert "red circle" in {r["category"] for r in rows["train"] + rows["test"]}


def remove(name):
  return lambda folder: next(iter(sorted(folder.glob(name)))).unlink()


def edit(name, old, new):
  def change(folder):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))

  return change


def cut(name):
  """Leaves the first half of a file."""

  def change(folder):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])

  return change


VQA = "v2_mscoco_train2014_annotations.json"
WRONG = [
  ("vqav2", remove(VQA), [f"{VQA}: no such file"]),
  ("vqav2", cut("val2014/COCO_val2014_000000000042.jpg"), ["val2014_questions.json", "042.jpg is no picture"]),
  ("vizwizvqa", cut("annotations/val.json"), ["annotations/val.json: broken JSON at byte"]),
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
  ("refcoco_seg", edit("annotations/instances_train2017.json", '"id": 1}', '"id": 99}'), ["refs(unc).p", "image_id 1 "]),
  ("refcoco_seg", edit("annotations/instances_train2017.json", '"id": 100}', '"id": 99}'), ["ann_id 100"]),
  ("cococap", remove("val2014/*"), ["dataset_coco.json: images[8]", "000042.jpg"]),
  ("coco_detection", edit("annotations/instances_val2017.json", '"category_id": 37', '"category_id": 5'), ["category 5"]),
  ("coco35l", edit("dataset_coco.json", '"cocoid": 9', '"cocoid": 8'), ["image_id 9 is not in"]),
  ("rsvqa_lr", edit("LR_split_val_answers.json", '"question_id": 100', '"question_id": 7'), ["question 7", "LR_split_val_questions.json"]),
  ("screen2words", edit("split/dev_screens.txt", "203", "999"), ["dev_screens.txt: 999", "screen_summaries.csv"]),
  ("widgetcap", edit("combined/100.json", "children", "kids"), ["widget_captions.csv: row 1", "100.json", "0.1.0"]),
  ("mmvp", edit("Questions.csv", "(a)\n", "(c)\n"), ["Questions.csv", '"(c)" is none of']),
  ("activitynet_qa", edit("val_a.json", '"v_val0_0"', '"x"'), ["val_q.json", "val_a.json", "v_val0_0"]),
  ("doclaynet_detection", edit("COCO/test.json", '"name": "Title"', '"name": "Head"'), ["Head"]),
  ("mlt19", edit("train_gt_t13/tr_img_00000.txt", "10,15", "10,x"), ["tr_img_00000.txt:1"]),
  ("music_score", remove("grandstaff/mozart/train/*.krn"), ["train.txt:1", "maj2_m-0-5.krn"]),
  ("mimic_cxr", remove("files/p10/p10000032/*.txt"), ["split.csv: row 1", "s50414267.txt"]),
  ("fintabnet", remove("png/AAL/train/*"), ["FinTabNet_1.0.0_train.jsonl:1", "page_0.png"]),
  ("infovqa", remove("images/0.jpeg"), ["infographicsVQA_train_v1.0.json: data[0]", "0.jpeg"]),
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
  assert "\n" not in str(e.value)
  assert not (tmp_path / "out" / data.name).exists()


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
