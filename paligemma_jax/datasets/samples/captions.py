"""Miniatures of the captioning sets besides COCO's own."""

import bz2
import pathlib

from paligemma_jax.datasets import coco, coco35l, xm3600
from paligemma_jax.datasets.samples import coco_like, documents, scenes

_HELLO = {"de": "ein Bild: {}", "th": "รูปภาพ {}", "ar": "صورة {}", "zh": "图片 {}", "en": "{}"}


def nocaps(folder: pathlib.Path) -> None:
  """Ten captions for each of eight photos; one photo is missing, one is cut off."""
  for name, pictures, first in (
    ("nocaps_val_4500_captions.json", "validation", 0), ("nocaps_test_image_info.json", "test", 20),
  ):  # fmt: skip
    files = [f"{first + i:016x}.jpg" for i in range(8)]
    scenes.save_scenes(folder / pictures, files)
    images = [
      {
        "id": first + i, "open_images_id": f[:-4], "height": 48, "width": 96, "license": 0,
        "coco_url": f"https://s3.amazonaws.com/{f}", "file_name": f, "date_captured": "2018-11-06",
      }
      for i, f in enumerate(files)
    ]  # fmt: skip
    whole = {"licenses": [], "info": {}, "images": images}
    if pictures == "validation":
      whole["annotations"] = [
        {"image_id": i, "id": 10 * i + k, "caption": f"{scenes.scene(i).caption}, {k}"}
        for k in range(10)
        for i in range(8)
      ]
    scenes.save_json(folder / name, whole)
    (folder / pictures / files[6]).unlink()
    cut = folder / pictures / files[7]
    cut.write_bytes(cut.read_bytes()[:-300])


def coco35l_files(folder: pathlib.Path) -> None:
  """Translations of two captions of a few photos; one photo has none in one language. Dev is packed."""
  scenes.save_scenes(folder / "train2014", [coco.file_2014("train2014", i) for i in range(9, 17)])
  scenes.save_scenes(folder / "val2014", [coco.file_2014("val2014", i) for i in range(42, 66)])
  scenes.save_json(folder / "dataset_coco.json", coco_like.karpathy())
  for part, ids in (("train", range(9, 17)), ("dev", range(42, 50))):
    rows = []
    for i, image_id in enumerate(ids):
      for k in range(2):
        said = f"{scenes.scene(i).caption} {'.' * (k + 1)}"
        for language in coco35l.LANGUAGES:
          if language == "en" or (i, language) == (3, "fr"):
            continue
          text = _HELLO.get(language, f"{language}: {{}}").format(said)
          rows.append({
            "image_id": f"{image_id}_{k}", "caption_tokenized": said, "trg_lang": language,
            "translation_tokenized": text, "backtranslation_tokenized": said,
          })  # fmt: skip
    text = scenes.json_lines(rows).encode()
    name = folder / f"coco_mt_{part}.jsonl"
    if part == "train":
      name.write_bytes(text)
    else:
      name.with_suffix(".jsonl.bz2").write_bytes(bz2.compress(text))


def xm3600_files(folder: pathlib.Path) -> None:
  """One or two captions of eight photos in all languages."""
  keys = [f"{i:016x}" for i in range(8)]
  scenes.save_scenes(folder / "images", [f"{key}.jpg" for key in keys])
  rows = []
  for i, key in enumerate(keys):
    row = {"image/key": key, "image/locale": "en"}
    for language in xm3600.LANGUAGES:
      said = _HELLO.get(language, f"{language}: {{}}").format(scenes.scene(i).caption)
      both = [said] if language in ("bn", "mi") else [said, f"{said}!"]
      row[language] = {"caption": both, "caption/tokenized": [t.replace("!", " !") for t in both]}
    rows.append(row)
  (folder / "captions.jsonl").write_text(scenes.json_lines(rows), encoding="utf-8")


def scicap(folder: pathlib.Path) -> None:
  """Bar charts with the captions of a paper in four spellings; subsets name some of them."""
  for split, first in (("train", 1), ("val", 2), ("test", 3)):
    for subfig in ("No", "Yes"):
      names = []
      for i in range(8):
        figure = f"{first}00{i}.0025v1-Figure{i}-{subfig}"
        bars = {color: 10 + (7 * i + 11 * k) % 40 for k, color in enumerate(scenes.COLORS[:3])}
        highest = max(bars, key=bars.get)
        chart = documents.chart(bars)
        scenes.save(folder / f"SciCap-{subfig}-Subfig-Img/{split}/{figure}.png", chart)
        said = f"Figure {i}: The {highest} bar reaches {bars[highest]} (α = 0.05)."
        plain = said.split(": ")[1].lower().replace(".", " .")
        scenes.save_json(folder / f"SciCap-Caption-All/{split}/{figure}.json", {
          "contains-subfigure": subfig == "Yes", "paper-ID": figure[:9], "figure-ID": figure,
          "figure-type": "Graph Plot", "0-originally-extracted": said, "Img-text": ["10"],
          "1-lowercase-and-token-and-remove-figure-index": {
            "caption": plain, "sentence": [plain], "token": plain.split(),
          },
          "2-normalized": {
            "2-1-basic-num": {"caption": plain.replace(str(bars[highest]), "NUM")},
            "2-2-advanced-euqation-bracket": {"caption": plain.replace("(α = 0 .05)", "BRACKET-TK")},
          },
        })  # fmt: skip
        names.append(f"{figure}.png")
      for k, subset in enumerate(
        ("Caption-No-More-Than-100-Tokens", "First-Sentence", "Single-Sentence-Caption")
      ):
        place = f"List-of-Files-for-Each-Experiments/{subset}/{subfig}-Subfig/{split}"
        scenes.save_json(folder / place / "file_idx.json", names[k:])


def screen2words(folder: pathlib.Path) -> None:
  """Five summaries of eight screens a split, in any order."""
  rows, splits = [("screenId", "summary")], {}
  for n, split in enumerate(("train", "dev", "test")):
    splits[split] = [100 * (n + 1) + i for i in range(8)]
    scenes.save_scenes(folder / "combined", [f"{screen}.jpg" for screen in splits[split]])
    for k in range(5):
      rows += [
        (s, f'screen, "{k}", {scenes.scene(i).caption}') for i, s in enumerate(splits[split])
      ]
  for split, screens in splits.items():
    path = folder / f"split/{split}_screens.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{screen}\n" for screen in screens))
  (folder / "screen_summaries.csv").write_text(scenes.csv_text(rows))


def widgetcap(folder: pathlib.Path) -> None:
  """Elements of eight screens a split, in view hierarchies of several levels."""
  rows = [("screenId", "nodeId", "captions")]
  for n, split in enumerate(("train", "dev", "test")):
    screens = [100 * (n + 1) + i for i in range(8)]
    for i, screen in enumerate(screens):
      scene = scenes.scene(i)
      scenes.save(folder / f"combined/{screen}.jpg", scene.picture())
      scale = 2560 / 48  # of the canvas to the screen's height
      leaves = [{"bounds": [v * scale for v in s.box], "text": s.name} for s in scene.shapes]
      root = {
        "bounds": [0, 0, 5120, 2560],
        "children": [{"bounds": [0, 0, 9, 9]}, {"children": leaves}],
      }
      scenes.save_json(folder / f"combined/{screen}.json", {"activity": {"root": root}})
      for k, s in enumerate(scene.shapes):
        rows.append((screen, f"0.1.{k}", f"{s.name}|the {s.kind} on the {s.place}|naïve"))
    path = folder / f"split/{split}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{screen}\n" for screen in screens))
  (folder / "widget_captions.csv").write_text(scenes.csv_text(rows), encoding="utf-8")
