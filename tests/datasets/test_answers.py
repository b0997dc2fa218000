"""What becomes of the quirks of question answering data, builder by builder."""

import numpy as np
from PIL import Image

from paligemma_jax.datasets.samples import documents, scenes
from tests.datasets.miniatures import FRAMES, pixels


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


def test_questions_about_videos(made):
  rows = {r["id"]: r for r in made.read("msvd_qa", "valid", **FRAMES)}
  assert rows["102"]["example/video_id"] == "vid10" and rows["103"]["answer"] == "2"
  rows = {r["id"]: r for r in made.read("activitynet_qa", "test", **FRAMES)}
  assert (rows["v_test0_0"]["answer"], rows["v_test0_2"]["type"]) == ("red", 5)
