"""What becomes of the quirks of captions, boxes, masks, texts and videos, builder by builder."""

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.data import stores
from paligemma_jax.datasets import coco_captions, pictures, raw, video
from paligemma_jax.datasets.samples import documents, scenes
from tests.datasets.miniatures import DATASETS, FRAMES, pixels


def test_textcaps_groups_the_captions_of_a_photo(made):
  rows = {r["image/id"]: r for r in made.read("text_caps", "train")}
  assert rows[f"{1:016x}"]["texts"] == ["A board that says café.", "the text café on white"]
  assert rows[f"{5:016x}"]["texts"] == ["A board that says EXIT."]  # the other one is empty
  assert all(r["texts"] == [] for r in made.read("text_caps", "test"))


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


def test_the_objects_of_coco_are_read_once_however_many_photos_there_are(made, monkeypatch):
  walked, walk = [], raw.Folder._walk
  monkeypatch.setattr(
    raw.Folder, "_walk", lambda self, *where: walked.append(where) or walk(self, *where)
  )
  folder = raw.Folder(made.raw("cococap"))
  for split in ("train", "restval", "val", "test"):
    assert len([*coco_captions.records(folder, split)]) == 8
  found = [where for where in walked if "instances" in where[0]]
  assert len(found) == len(set(found)) == 6  # three arrays of each of two files


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


def test_videos_come_as_their_frames_in_order(made):
  rows = {r["example/video_id"]: r for r in made.read("msrvtt", "train", **FRAMES)}
  folder = made.raw("msrvtt_cap") / "video/video2"
  assert rows["video2"]["image"] == [p.read_bytes() for p in sorted(folder.iterdir())]
  assert sorted(rows["video2"]["caption/string"]) == sorted(
    f"{scenes.scene(2).caption} {k}" for k in range(20)
  )
  assert "video23" not in {r["example/video_id"] for r in made.read("msrvtt", "test", **FRAMES)}
  assert {len(r["caption/string"]) for r in made.read("vatex", "valid", **FRAMES)} == {10}


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
  (frame,) = clip.read()
  assert clip.probe() == len(frame)
  assert b"-ss 4.0 -to 8.0 -i " in frame and b"video/video0.mp4" in frame


@pytest.mark.parametrize(
  "script",
  [
    "exit 1",  # no video at all
    "exit 0",  # without a picture
    'for out; do :; done; echo a > "${out%/*}/1.jpg"; echo "stream 0: partial file" >&2',  # cut off
  ],
)
def test_a_damaged_video_is_found_before_anything_is_written(tmp_path, monkeypatch, script):
  (tmp_path / "video").mkdir()
  (tmp_path / "video/video0.mp4").write_bytes(b"film")
  (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
  (tmp_path / "ffmpeg").chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
  with pytest.raises(pictures.BadPicture, match="video0.mp4 cannot be read"):
    video.clip(raw.Folder(tmp_path), "video0").probe()


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
  assert (r["structure"][0], r["structure"][-1]) == ("<table>", "</table>")
  assert r["structure"].count("<td>") == 4 == len(r["objects"])
  assert [o["label"] for o in r["objects"]][:3] == ["<b>année</b>", "", "n&lt;total"]
  assert np.round(r["objects"][0]["box"]).tolist() == [4, 4, 60, 16]
  assert r["objects"][1]["box"] == [0, 0, 0, 0]
  assert (pixels(r["image"])[4:16, 4:60] < 128).any()


@pytest.mark.parametrize(
  "name", ["icdar15", "total_text", "mlt17", "mlt19", "hiertext", "textocr", "intelocr"]
)
def test_words_in_photos_have_the_box_around_their_polygon(made, name):
  fields = (
    ("objects/box", "words/bbox"), ("objects/label", "words/text"),
    ("objects/ignore", "words/illegible"),
  )  # fmt: skip
  rows = made.read(name, "train", fields=fields)
  for r in rows:
    word, unread = r["objects"]
    assert np.round(word["box"]).tolist() == [10, 15, 110, 45] and not word["ignore"]
    assert unread["label"] == "###" and unread["ignore"]
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
  assert rows["02aa040"]["report"] == "FINDINGS AND IMPRESSION: Clear lungs."
  assert "02aa050" not in rows and rows["02aa010"]["report"] == rows["02aa011"]["report"]


def test_objaverse_holds_things_out_with_all_their_views(made):
  rows = {s: made.read("objaverse", s, **FRAMES) for s in ("train", "test")}
  assert not {r["uid"] for r in rows["train"]} & {r["uid"] for r in rows["test"]}
  assert {len(r["image"]) for r in rows["train"]} == {8}
  assert "red circle" in {r["category"] for r in rows["train"] + rows["test"]}
