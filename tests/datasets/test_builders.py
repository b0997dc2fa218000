"""Every builder on its miniature: what is made of it, split by split, and what is said of bad input."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.datasets import samples, tasks, write
from paligemma_jax.datasets.samples import scenes
from tests.datasets.miniatures import DATASETS, pixels

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


def test_pictures_are_as_pillow_decodes_them_though_exif_would_turn_them(made):
  folder = made.raw("vqav2") / "train2014"
  for r in made.read("vqa", "train"):
    want = np.asarray(Image.open(folder / r["image/filename"]).convert("RGB"))
    np.testing.assert_array_equal(pixels(r["image"]), want)
    assert Image.open(io.BytesIO(r["image"])).getexif().get(0x0112, 1) == 1


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
  ("scicap", remove("SciCap-Caption-All/train/*"), ["file_idx.json: [0]", "0-No.json: no such file"]),
  ("nocaps", edit("nocaps_val_4500_captions.json", '"id": 0,', '"id": 77,'), ["images[0]: no caption of image 77"]),
  ("docvqa", edit("val_v1.0_withQT.json", '"answers"', '"answer"'), ["val_v1.0_withQT.json: data[0]", "'answers'"]),
  ("objaverse_multiview", cut("lvis-annotations.json.gz"), ["lvis-annotations.json.gz: cannot be read"]),
  ("mmvp", edit("Questions.csv", "(a)\n", "(c)\n"), ["Questions.csv", '"(c)" is none of']),
  ("activitynet_qa", edit("val_a.json", '"v_val0_0"', '"x"'), ["val_q.json", "val_a.json", "v_val0_0"]),
  ("doclaynet_detection", edit("COCO/test.json", '"name": "Title"', '"name": "Head"'), ["Head"]),
  ("mlt19", edit("train_gt_t13/tr_img_00000.txt", "10,15", "10,x"), ["tr_img_00000.txt:1"]),
  ("mlt19", edit("train_gt_t13/tr_img_00000.txt", ",Latin", ""), ["tr_img_00000.txt:1: 8 commas, wanted 9"]),
  ("total_text", edit("Groundtruth/Polygon/Train/poly_gt_img0.txt", "y: [[", "z: [["), ["poly_gt_img0.txt: word 1: wanted x: ["]),
  ("total_text", edit("Groundtruth/Polygon/Train/poly_gt_img0.txt", "transcriptions: [u'", "transcriptions: ["), ["poly_gt_img0.txt: word 1"]),
  ("music_score", remove("grandstaff/mozart/train/*.krn"), ["train.txt:1", "maj2_m-0-5.krn"]),
  ("mimic_cxr", remove("files/p10/p10000032/*.txt"), ["split.csv: row 1", "s50414267.txt"]),
  ("fintabnet", remove("png/AAL/train/*"), ["FinTabNet_1.0.0_cell_train.jsonl:1", "page_0.png"]),
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


def test_a_broken_picture_is_left_out_where_there_are_no_answers(tmp_path):
  samples.write("vizwizvqa", tmp_path)
  cut("test/VizWiz_test_00000002.jpg")(tmp_path)
  (tmp_path / "test/VizWiz_test_00000003.jpg").unlink()
  task, said = tasks.module("vizwizvqa").TASK, []
  line = write.build(task.datasets[0], task, tmp_path, tmp_path / "out", say=said.append)
  assert line.endswith("train 8, val 8, test 6")
  assert "vizwizvqa: 2 records of test left out, no picture" in said


# Task -> the folder of its test pictures, which many have no use for.
TEST_PICTURES = {
  "coco_detection": "test2017", "vqav2": "test2015", "aokvqa": "test2017", "docvqa": "test",
  "textvqa": "test_images", "vizwizvqa": "test", "textcaps": "test_images",
}  # fmt: skip


@pytest.mark.parametrize("task, pictures", TEST_PICTURES.items())
def test_a_test_split_without_its_folder_of_pictures_is_left_out(tmp_path, task, pictures):
  samples.write(task, tmp_path / "raw")
  found = [path for path in (tmp_path / "raw").rglob(pictures) if path.is_dir()]
  assert found
  for path in found:
    shutil.rmtree(path)
  about, said = tasks.module(task).TASK, []
  data = about.datasets[0]
  line = write.build(data, about, tmp_path / "raw", tmp_path / "out", say=said.append)
  left_out = [s for s in data.sizes if s.startswith("test")]
  assert not any(f"{split} " in line for split in left_out) and line.split(": ")[1].startswith(
    "train "
  )
  assert any(f"without their files, left out: {', '.join(left_out)} (" in s for s in said)


def test_gqa_is_built_from_the_files_that_are_there(made, tmp_path):
  samples.write("gqa", tmp_path)
  for path in tmp_path.glob("*_all_questions.json"):
    path.unlink()
  task, said = tasks.module("gqa").TASK, []
  line = write.build(task.datasets[0], task, tmp_path, tmp_path / "out", say=said.append)
  assert "val_balanced 16" in line and "val_all" not in line
  assert any("left out: val_all, testdev_all, challenge_all" in s for s in said)


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
