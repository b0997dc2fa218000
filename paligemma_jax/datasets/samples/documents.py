"""Miniatures of the sets on documents, charts, diagrams and photos with writing."""

import pathlib

from PIL import Image, ImageDraw

from paligemma_jax.datasets.samples import scenes

WORDS = ("STOP", "café", "OPEN 24h", "Straße", "No. 7", "EXIT", "日本", "tea")


def sign(i: int) -> Image.Image:
  """A board with the i-th word on it."""
  image = Image.new("RGB", (120, 60), scenes.COLORS[i % 3])
  pen = ImageDraw.Draw(image)
  pen.rectangle((10, 15, 110, 45), fill="white")
  pen.text((20, 24), WORDS[i], fill="black")
  return image


def page(lines) -> Image.Image:
  """A page with lines of text."""
  image = Image.new("RGB", (160, 20 + 16 * len(lines)), "white")
  pen = ImageDraw.Draw(image)
  for k, line in enumerate(lines):
    pen.text((10, 10 + 16 * k), line, fill="black")
  return image


def textvqa(folder: pathlib.Path) -> None:
  """Boards to read; one lies on its side and one upside down, which the tables of rotations say."""
  for split, pictures, first in (
    ("train", "train_images", 0), ("val", "train_images", 8), ("test", "test_images", 16),
  ):  # fmt: skip
    ids = [f"{first + i:016x}" for i in range(8)]
    rotations = ["", "0.0", "90.0", "180.0", "", "", "", "0.0"]
    rows = []
    for i, image_id in enumerate(ids):
      upright = sign(i)
      turned = upright.rotate(-float(rotations[i] or 0), expand=True)
      scenes.save(folder / pictures / f"{image_id}.jpg", turned, orientation=3 if i == 4 else 1)
      question = "what does the board say?"
      row = {
        "question": question, "question_id": 34602 + first + i, "image_id": image_id,
        "question_tokens": question.rstrip("?").split(), "image_classes": ["Sign"],
        "image_width": upright.width, "image_height": upright.height,
        "flickr_original_url": "", "flickr_300k_url": "", "set_name": split,
      }  # fmt: skip
      rows.append(row if split == "test" else {**row, "answers": [WORDS[i].lower()] * 9 + [""]})
    whole = {"dataset_type": split, "dataset_name": "textvqa", "data": rows}
    scenes.save_json(folder / f"TextVQA_0.5.1_{split}.json", whole)
    table = folder / pictures / "rotation.csv"
    head = "" if table.exists() else "ImageID,Subset,OriginalURL,Rotation\nffff,train,http://x,\n"
    lines = [f"{i},{split},http://x,{r}\n" for i, r in zip(ids, rotations)]
    with open(table, "a") as f:  # train and val share theirs
      f.write(head + "".join(lines))


def textcaps(folder: pathlib.Path) -> None:
  """Two captions for each of eight boards, one row a caption; one is empty."""
  for split, pictures, first in (
    ("train", "train_images", 0), ("val", "train_images", 8), ("test", "test_images", 16),
  ):  # fmt: skip
    rows = []
    for k in range(2):
      for i in range(8):
        name = f"{first + i:016x}"
        scenes.save(folder / pictures / f"{name}.jpg", sign(i))
        row = {"image_id": name, "image_name": name, "image_path": f"{pictures}/{name}.jpg"}
        captions = f"A board that says {WORDS[i]}.", f"the text {WORDS[i]} on white"
        if split != "test":
          row["caption_str"] = "" if (i, k) == (5, 1) else captions[k]
          row["reference_strs"] = list(captions)
        rows.append(row)
    whole = {"dataset_type": split, "dataset_name": "textcaps", "data": rows}
    scenes.save_json(folder / f"TextCaps_0.1_{split}.json", whole, ascii_only=False)
    scenes.save_json(folder / pictures / "rotation.csv", [])  # lies there, and is not needed


def vizwizvqa(folder: pathlib.Path) -> None:
  """Boards photographed by hand: some lie on their side by EXIF, some cannot be answered."""
  for split in ("train", "val", "test"):
    rows = []
    for i in range(8):
      name = f"VizWiz_{split}_{i:08d}.jpg"
      scenes.save(folder / split / name, sign(i), orientation=(1, 6, 8, 3)[i % 4])
      row = {"image": name, "question": "What does this say? Thank you."}
      if split != "test":
        said = ["unanswerable"] * 10 if i == 7 else [WORDS[i].lower()] * 8 + ["", "sign"]
        sure = ["yes"] * 8 + ["maybe", "no"]
        row["answers"] = [{"answer": a, "answer_confidence": s} for a, s in zip(said, sure)]
        row |= {"answer_type": "unanswerable" if i == 7 else "other", "answerable": int(i != 7)}
      rows.append(row)
    scenes.save_json(folder / f"annotations/{split}.json", rows)


def docvqa(folder: pathlib.Path) -> None:
  """Letters with a date and a total; answers of several spellings, with their case."""
  for n, split in enumerate(("train", "val", "test")):
    rows = []
    for i in range(8):
      name = f"documents/xnbl{i:04d}_{n + 1}.png"
      date, total = f"May {i + 1}, 1987", f"${10 * i + 7}.50"
      picture = page(
        [f"To: {scenes.COLORS[i % 6].title()} & Söhne", f"Date: {date}", f"Total {total}"]
      )
      scenes.save(folder / split / name, picture.convert("L"))
      row = {
        "questionId": 1000 * n + i, "question": "What is the total?" if i % 2 else "What is the date?",
        "image": name, "docId": i, "ucsf_document_id": f"xnbl{i:04d}",
        "ucsf_document_page_no": str(n + 1), "data_split": split,
      }  # fmt: skip
      if split != "test":
        row["question_types"] = ["form"]
        row["answers"] = [total, total[1:]] if i % 2 else [date]
      rows.append(row)
    name = "test_v1.0.json" if split == "test" else f"{split}_v1.0_withQT.json"
    whole = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": split}
    scenes.save_json(folder / name, {**whole, "data": rows})


def chartqa(folder: pathlib.Path) -> None:
  """Bar charts; several questions share one. Answers are numbers, names and percentages."""
  root = folder / "ChartQA Dataset"
  for split in ("train", "val", "test"):
    for kind in ("human", "augmented"):
      rows = []
      for i in range(8):
        bars = {color: 10 + (7 * i + 13 * k) % 40 for k, color in enumerate(scenes.COLORS[:3])}
        name = f"{kind}_{i // 2}.png" if i % 4 == 1 else f"{kind}_{i}.png"
        if i % 4 == 1:
          bars = {color: 10 + (7 * (i // 2) + 13 * k) % 40 for k, color in enumerate(bars)}
        scenes.save(root / split / "png" / name, chart(bars))
        highest = max(bars, key=bars.get)
        asked = [
          ("Which bar is the highest?", highest.title()),
          ("What's the value of the red bar?", str(bars["red"])),
          ("What share does blue have?", f"{100 * bars['blue'] / sum(bars.values()):.1f}%"),
        ][i % 3]
        rows.append({"imgname": name, "query": asked[0], "label": asked[1]})
      scenes.save_json(root / split / f"{split}_{kind}.json", rows)


def chart(bars: dict[str, int]) -> Image.Image:
  """A bar chart: color -> height in pixels, written on top."""
  image = Image.new("RGB", (110, 80), "white")
  pen = ImageDraw.Draw(image)
  for k, (color, height) in enumerate(bars.items()):
    pen.rectangle((10 + 34 * k, 75 - height, 34 + 34 * k, 75), fill=color)
    pen.text((14 + 34 * k, 62 - height), str(height), fill="black")
  return image


def science_qa(folder: pathlib.Path) -> None:
  """Questions with two to five choices; some have a hint, some no picture."""
  problems, listed = {}, {"train": [], "val": [], "test": []}
  for n, split in enumerate(listed):
    for i in range(10):
      shape, key = scenes.scene(i).shapes[0], str(100 * n + i)
      choices = [c for c in scenes.COLORS if c != shape.color][: 1 + i % 4]
      choices.insert(i % (len(choices) + 1), shape.color)
      has_picture = i < 8
      if has_picture:
        scenes.save(
          folder / f"data/scienceqa/images/{split}/{key}/image.png", scenes.scene(i).picture()
        )
      problems[key] = {
        "question": f"Which color does the {shape.kind} have?", "choices": choices,
        "answer": choices.index(shape.color), "hint": "Look at the shape’s inside." if i % 2 else "",
        "image": "image.png" if has_picture else None, "task": "closed choice", "grade": "grade2",
        "subject": "natural science", "topic": "physics", "category": "Light", "skill": "Colors",
        "lecture": "", "solution": f"It is {shape.color}.", "split": split,
      }  # fmt: skip
      listed[split].append(key)
  scenes.save_json(folder / "data/scienceqa/problems.json", problems)
  scenes.save_json(folder / "data/scienceqa/pid_splits.json", listed)


def ai2d(folder: pathlib.Path) -> None:
  """Diagrams with names; the letters of one replace them, and one of its boxes runs backwards."""
  for i in range(12):
    scene = scenes.scene(i)
    picture = Image.new("RGB", (96, 70), "white")
    picture.paste(scene.picture(), (0, 0))
    pen, texts = ImageDraw.Draw(picture), {}
    for k, shape in enumerate(scene.shapes):
      x = 4 + 32 * k
      pen.text((x, 54), shape.color, fill="black")
      corners = [[x, 52], [x + 28, 68]]
      texts[f"T{k}"] = {
        "id": f"T{k}", "replacementText": "ABC"[k], "value": shape.color,
        "rectangle": corners[::-1] if k == 1 else corners,
      }  # fmt: skip
    name = f"{i}.png" if i else "0.gif.png"  # the id ends at the first dot
    scenes.save(folder / "ai2d/images" / name, picture)
    scenes.save_json(folder / f"ai2d/annotations/{name}.json", {"text": texts, "blobs": {}})
    first, is_letter = scene.shapes[0], i % 3 == 2
    choices = ["C", "A", "B"] if is_letter else ["rosé", first.color, "white", "grey"]
    asked = (
      f"Which label is at the {first.kind}?" if is_letter else f"What color is the {first.kind}?"
    )
    second = {
      "abcLabel": False, "answerTexts": ["0", "1", "2", "3"], "correctAnswer": len(scene.shapes),
      "questionId": f"{name}-1",
    }  # fmt: skip
    questions = {
      asked: {
        "abcLabel": is_letter,
        "answerTexts": choices,
        "correctAnswer": 1,
        "questionId": f"{name}-0",
      },
      "How many shapes are there?": second,
    }
    whole = {"imageName": name, "questions": questions}
    scenes.save_json(folder / f"ai2d/questions/{name}.json", whole)
  (folder / "ai2d_test_ids.csv").write_text("0\n3\n5\n11\n")
