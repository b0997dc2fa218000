import pytest

from paligemma_jax import errors


def test_quotes_line_ends_and_other_alphabets(draw, put, convert, rows):
  draw("pics/a b.png"), draw("pics/\u732b.png")
  text = (
    '\ufeffimage,prefix,suffix,source\r\n'
    'a b.png,"answer en what, please?","said ""yes""\nand left",web\r\n'
    "\r\n"
    "\u732b.png,caption de,\u00fcber Stra\u00dfen \U0001f408,\r\n"
  )  # fmt: skip
  src = put("t.csv", text)
  source, said = convert("csv", src, images=str(src.parent / "pics"))
  assert said == "2 examples"
  first, second = rows(source)
  assert first["prefix"] == "answer en what, please?"
  assert first["suffix"] == 'said "yes"\nand left' and first["source"] == "web"
  assert second["suffix"] == "\u00fcber Stra\u00dfen \U0001f408"
  assert source[1]["image"] == "pics/\u732b.png"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_of_other_names_and_one_prefix_for_all(draw, put, convert, delimiter):
  draw("a.png")
  lines = ["file answer question".split(), "a.png 1,5 where?".split()]
  text = "\n".join(delimiter.join(f'"{w}"' for w in line) for line in lines)
  columns = {"image": "file", "suffix": "answer"}
  source, _ = convert("csv", put("t.csv", text), columns=columns, prefix="count")
  assert source[0] == {"image": "a.png", "suffix": "1,5", "question": "where?", "prefix": "count"}


def test_addresses_stay_and_empty_suffixes_are_counted(put, convert):
  text = "image,prefix,suffix\nhttps://host/a.png,p,\nhttps://host/b.png,p,s\n"
  src = put("t.csv", text)
  source, said = convert("csv", src)
  assert source[0]["image"] == "https://host/a.png"
  assert said == f"2 examples\nempty suffixes, kept: 1 ({src}:2)"


def test_what_excel_adds_is_passed_over(draw, put, convert):
  draw("a.png")
  text = 'sep=;\n"image";prefix;suffix;"a,b,c,d,e"\na.png ;p;s;1,5\n;;;\n'
  (record,) = convert("csv", put("t.csv", text))[0]
  assert record == {"image": "a.png", "prefix": "p", "suffix": "s", "a,b,c,d,e": "1,5"}


HEAD = "image,prefix,suffix\n"


@pytest.mark.parametrize(
  "text, options, words",
  [
    (HEAD + 'a.png,p,"s\nt"\na.png,p\n', {}, "t.csv:4: 2 fields, the header has 3"),
    (HEAD + 'a.png,p,"s\n', {}, "t.csv:2: broken CSV"),
    (HEAD + "a.png,p,s\nb.png,p,s\n", {}, "t.csv:3: no picture .*b.png"),
    (HEAD + "t.csv,p,s\n", {}, "t.csv:2: .*t.csv: not an image"),
    ("image,suffix\na.png,s", {}, r'no columns for "prefix" \(found: image, suffix\); give --columns prefix=NAME or --prefix'),
    ("image,prefix,answer\na.png,p,s", {}, 'no columns for "suffix"'),
    ("image,prefix,suffix,suffix\na.png,p,s,s", {}, '2 columns for "suffix"'),
    (HEAD, {"columns": {"image": "imgae"}}, '0 columns are named "imgae".* did you mean "image"'),
    (HEAD, {}, "t.csv: nothing to import"),
    ("", {}, 'no columns for "image"'),
    (HEAD + ",p,s\n", {}, "t.csv:2: the name of the picture is empty"),
    ("image,prefix,suffix,objects\na.png,p,s,3", {}, 'a column is named "objects", the key of boxes'),
    ("PK\3\4", {}, "an archive or a workbook; unpack it"),
  ],
)  # fmt: skip
def test_what_is_broken_is_one_line_with_its_number(draw, put, convert, text, options, words):
  draw("a.png")
  src = put("t.csv", text)
  with pytest.raises(errors.UserError, match=words) as e:
    convert("csv", src, **options)
  assert "\n" not in str(e.value) and not (src.parent / "out.jsonl").exists()


@pytest.mark.parametrize(
  "text, words",
  [
    ("filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,x,4", r"t.csv:2: the box is \['1', '2', 'x'"),
    ("filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,3", "t.csv:2: 5 fields; wanted 6"),
    ("filename,class,xmin,ymin,xmax,ymax\nb.png,cat,1,2,3,4", "t.csv:2: no picture .*b.png"),
    ("filename,class,xmin,ymin,xmax,ymax\na.png,,1,2,3,4", "t.csv:2: the name of the class is empty"),
    ("filename,class,xmin,ymin,xmax,ymax\n", "nothing to import"),
    ("filename,width,height,class,xmin,ymin,xmax,ymax\na.png,80,60,cat,1,2,3,4",
     "t.csv:2: .*a.png has 40 x 30 pixels, the annotations are for 80 x 60"),
    ("a.png,,,,,\n", "nothing to import .pictures without a usable annotation, left out: 1"),
    ("filename,region_shape_attributes,region_attributes\na.png,[1],{}", "no JSON object"),
    ('filename,region_shape_attributes,region_attributes\na.png,"{""name"":""polygon"",""all_points_x"":1}",{}',
     "polygons of fewer than 3 points, left out: 1"),
    ('filename,region_shape_attributes,region_attributes\na.png,"{""name"":""rect""}",{}',
     r"t.csv:2: the box is \[None"),
  ],
)  # fmt: skip
def test_broken_boxes_are_one_line_with_its_number(draw, put, convert, text, words):
  draw("a.png")
  with pytest.raises(errors.UserError, match=words):
    convert("csv", put("t.csv", text))


@pytest.mark.parametrize(
  "corners", ["x0,y0,x1,y1", "left,top,right,bottom", "X_Min;Y_Min;X_Max;Y_Max"]
)
def test_corners_by_any_of_their_usual_names(draw, put, convert, corners):
  draw("a.png")
  between = ";" if ";" in corners else ","
  head = between.join(["image", "width", "height", "label", corners])
  row = between.join(
    ["a.png", "0", "", "cat", *("5,0 3 20 9" if between == ";" else "5 3 20 9").split()]
  )
  ((record,),) = (convert("csv", put("t.csv", f"{head}\n{row}\n"))[0],)
  assert record["objects"] == [{"label": "cat", "box": [5, 3, 20, 9]}]


def test_boxes_are_left_alone_where_a_suffix_is_asked_for(draw, put, convert):
  draw("a.png")
  text = "filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,3,4\n"
  columns = {"image": "filename", "suffix": "class"}
  source, _ = convert("csv", put("t.csv", text), columns=columns, prefix="what?")
  assert (source[0]["suffix"], source[0]["xmin"]) == ("cat", "1") and "objects" not in source[0]


def test_another_encoding_is_named_with_its_line(put, convert):
  src = put("t.csv", "")
  src.write_bytes(HEAD.encode() + "a.png,p,\u00fcber".encode("latin-1"))
  with pytest.raises(errors.UserError, match="t.csv:2: not UTF-8"):
    convert("csv", src)
