"""One data set, a red cat in a grey picture, in the dialects of the tools that people use.

Each function writes what the tool writes, as far as reading depends on it, and returns what to
import. Pictures have 40 x 30 pixels, the cat's box is BOX.
"""

import json

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import checks
from paligemma_jax.processing import masks
from tests.data.importers.marked import MASK, counts

BOX = [5, 3, 20, 9]  # x0, y0, x1, y1, of MASK
XYWH = [5, 3, 15, 6]
POLYGON = [5, 3, 20, 3, 20, 9, 5, 9]
CENTRE = "0.3125 0.2 0.375 0.2"  # of YOLO
CORNERS = "0.125 0.1 0.5 0.1 0.5 0.3 0.125 0.3"


def coco(image=None, annotation=None, categories=({"id": 1, "name": "cat"},)):
  image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30, **(image or {})}
  given = {"id": 1, "image_id": 1, "category_id": 1, "bbox": XYWH, "iscrowd": 0, "area": 90}
  return {
    "info": {}, "licenses": [], "images": [image], "categories": list(categories),
    "annotations": [{**given, **(annotation or {})}],
  }  # fmt: skip


def coco_of_cvat(draw, put):
  draw("images/default/a.png")
  attributes = {"occluded": False, "rotation": 0.0, "track_id": 0}
  data = coco(
    {"license": 0, "coco_url": "", "date_captured": 0},
    {"attributes": attributes, "segmentation": [POLYGON]},
  )
  return "coco", put("annotations/instances_default.json", data), {}


def coco_of_roboflow(draw, put):
  draw("train/a_png.rf.0123456789abcdef.jpg")
  classes = [
    {"id": 0, "name": "pets", "supercategory": "none"},
    {"id": 1, "name": "cat", "supercategory": "pets"},
  ]
  image = {"id": 0, "file_name": "a_png.rf.0123456789abcdef.jpg", "license": 1}
  data = coco(image, {"image_id": 0, "bbox": [5, 3, "15", 6.0], "segmentation": []}, classes)
  return "coco", put("train/_annotations.coco.json", data), {}


def coco_of_label_studio(draw, put):
  src = draw("pictures/a.png").parents[1]
  data = coco({"file_name": "/data/upload/7/3f2a1b7c-a.png"}, {"segmentation": [], "ignore": 0})
  return "coco", put("result.json", data), {"images": str(src / "pictures")}


def coco_of_label_studio_with_local_files(draw, put):
  src = draw("set/sub%20folder/a.png").parents[2]
  data = coco({"file_name": "/data/local-files/?d=set/sub%2520folder/a.png"})
  return "coco", put("result.json", data), {"images": str(src / "set")}


def coco_of_via(draw, put):
  draw("a.png")
  data = coco({"id": "1", "flickr_url": ""}, {"id": "1", "image_id": "1", "segmentation": POLYGON})
  return "coco", put("via_export_coco.json", data), {}


def coco_of_hasty(draw, put):
  draw("Default/a.png")
  data = coco({"dataset_name": "Default"}, {"segmentation": [[float(v) for v in POLYGON]]})
  return "coco", put("export.json", data), {}


def coco_of_fiftyone(draw, put):
  draw("data/a.png")
  data = coco({"license": None, "coco_url": None}, {"supercategory": None})
  del data["annotations"][0]["iscrowd"]
  return "coco", put("labels.json", data), {}


def coco_of_anylabeling(draw, put):
  draw("images/a.png")
  data = coco(
    {"file_name": r"D:\work\images\a.png"}, {"segmentation": [[[5, 3], [20, 3], [20, 9], [5, 9]]]}
  )
  return "coco", put("instances.json", data), {}


def coco_of_supervisely(draw, put):
  draw("ds0/img/a.png")
  color = [{"id": 1, "name": "cat", "color": [255, 0, 0]}]
  data = coco({"file_name": "a.png"}, {"segmentation": [POLYGON], "iscrowd": False}, color)
  return "coco", put("ds0/instances.json", data), {}


def coco_keypoints(draw, put):
  draw("a.png")
  data = coco(None, {"keypoints": [6, 4, 2] * 17, "num_keypoints": 17, "segmentation": [POLYGON]})
  return "coco", put("person_keypoints_train2017.json", data), {}


def coco_with_categories_by_id(draw, put):
  draw("a.png")
  return "coco", put("a.json", {**coco(), "categories": {"1": "cat"}}), {}


def coco_of_mmdetection(draw, put):
  draw("a.png")
  runs = {"size": [30, 40], "counts": masks.encode_rle(MASK)["counts"]}
  return "coco", put("a.json", coco(None, {"segmentation": [runs], "ignore": False})), {}


def coco_of_lvis_with_boxes_alone(draw, put):
  draw("train2017/000000000042.png")
  image = {
    "coco_url": "http://images.cocodataset.org/train2017/000000000042.png",
    "neg_category_ids": [2],
  }
  data = coco(image)
  del data["images"][0]["file_name"], data["annotations"][0]["iscrowd"]
  return "coco", put("lvis.json", data), {}


def coco_in_utf_16(draw, put):
  draw("a.png")
  path = put("a.json", "")
  path.write_text(json.dumps(coco()), "utf-16")
  return "coco", path, {}


def coco_in_utf_16_without_a_byte_order_mark(draw, put):
  draw("a.png")
  path = put("a.json", "")
  path.write_text(json.dumps(coco()), "utf-16-le")
  return "coco", path, {}


def coco_of_lvis_0_5(draw, put):
  draw("val2017/000000000042.png")
  return "coco", put("lvis.json", coco({"file_name": "COCO_val2014_000000000042.png"})), {}


def coco_with_names_from_before_the_upload(draw, put):
  draw("pictures/3f2a1b7c-a.png")
  data = coco({"image_name": "a.png"})
  del data["images"][0]["file_name"]
  return "coco", put("result.json", data), {}


def coco_beside_pictures_in_folders_of_supervisely(draw, put):
  draw("ds0/img/a.png")
  return "coco", put("ds0/ann/a.json", coco({"file_name": "a.png "})), {}


def yolo_of_ultralytics(draw, put):
  draw("images/train/a.png"), put("labels/train/a.txt", f"0 {CENTRE}\n")
  text = "path: ../datasets/pets  # dataset root dir\ntrain: images/train\nval: images/val\ntest:\n\nnames:\n  0: cat\n"
  return "yolo", put("data.yaml", text).parent, {"split": "train"}


def yolo_of_roboflow(draw, put):
  draw("train/images/a.jpg"), put("train/labels/a.txt", f"0 {CENTRE}")
  text = "names:\n- cat\nnc: '1'\nroboflow:\n  license: CC BY 4.0\n  version: 3\ntest: ../test/images\ntrain: ../train/images\nval: ../valid/images\n"
  return "yolo", put("data.yaml", text), {}


def yolo_of_supervision(draw, put):
  draw("images/a.png"), put("labels/a.txt", f"0 {CENTRE}")
  return "yolo", put("data.yaml", "names:\n- cat\nnc: 1\n"), {}


def yolo_of_cvat(draw, put):
  draw("obj_train_data/a.png"), put("obj_train_data/a.txt", f"0 {CENTRE}\n")
  put("obj.names", "cat\n"), put("train.txt", "data/obj_train_data/a.png\n")
  data = "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
  return "yolo", put("obj.data", data).parent, {}


def yolo_of_darknet_on_another_machine(draw, put):
  draw("data/obj/a.png"), put("data/obj/a.txt", f"0 {CENTRE}\n")
  put("data/obj.names", "cat\n"), put("data/train.txt", "/content/darknet/data/obj/a.png\n")
  data = "classes=1\ntrain=/content/darknet/data/train.txt\nvalid=/content/darknet/data/test.txt\nnames=/content/darknet/data/obj.names\n"
  return "yolo", put("data/obj.data", data), {"split": "train"}


def yolo_of_label_studio(draw, put):
  draw("images/3f2a1b7c-a.png"), put("labels/3f2a1b7c-a.txt", f"0 {CORNERS}")
  put("notes.json", {"categories": [{"id": 0, "name": "cat"}]})
  return "yolo", put("classes.txt", "cat\n").parent, {}


def yolo_of_windows(draw, put):
  draw("Images/A.PNG"), put("Labels/a.TXT", f"\ufeff0 {CENTRE} \r\n\r\n")
  return "yolo", put("classes.txt", "cat\r\n").parent, {}


def yolo_of_labelimg(draw, put):
  draw("a.png"), put("a.txt", f"0 {CENTRE}\n")
  return "yolo", put("classes.txt", "cat\n").parent, {}


def yolo_with_lists_and_a_name_that_yaml_reads_as_false(draw, put):
  draw("images/a.png"), put("labels/a.txt", f"1.0 {CENTRE}\n")
  put("train.txt", "./images/a.png\n")
  return "yolo", put("data.yml", "train: [train.txt]\nnames: [yes, no, 007]\n"), {}


def xml(*parts, name="a.jpg", size=(40, 30)):
  return (
    f"<annotation><folder>x</folder><filename>{name}</filename><source><database>Unknown</database>"
    f"</source><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    f"{''.join(parts)}</annotation>"
  )


def thing(x0, y0, x1, y1, more="", name="cat"):
  return (
    f"<object><name>{name}</name><pose>Unspecified</pose>{more}<bndbox><xmin>{x0}</xmin><ymin>{y0}"
    f"</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
  )


def voc_of_labelimg(draw, put):
  draw("a.jpg")
  more = r"<path>C:\Users\me\a.jpg</path>"
  return "voc", put("a.xml", xml(more, thing(6, 4, 20, 9))).parent, {}


def voc_of_cvat(draw, put):
  draw("JPEGImages/sub/a.jpg"), put("labelmap.txt", "# label:color_rgb:parts:actions\ncat:::\n")
  put("ImageSets/Main/default.txt", "sub/a\n"), put("ImageSets/Main/cat_default.txt", "sub/a 1\n")
  attributes = (
    "<attributes><attribute><name>rotation</name><value>0.0</value></attribute></attributes>"
  )
  text = xml(thing("5.0", "3.0", "20.0", "9.0", attributes), name="sub/a.jpg")
  src = put("Annotations/sub/a.xml", text).parents[2]
  return "voc", src, {"zero_based": True, "split": "default"}


def voc_of_datumaro(draw, put):
  """The drawing numbers its objects otherwise than the XML: the first object there has no mask."""
  src = draw("JPEGImages/a.jpg").parents[1]
  colours = np.zeros((30, 40, 3), np.uint8)
  colours[MASK], colours[20:] = (128, 0, 0), (0, 128, 0)
  (src / "SegmentationObject").mkdir()
  Image.fromarray(colours).save(src / "SegmentationObject" / "a.png")
  parts = (
    thing(30.0, 1.0, 35.0, 7.0),
    thing(0.0, 20.0, 40.0, 30.0, name="sea"),
    thing(5.0, 3.0, 20.0, 9.0),
  )
  put("Annotations/a.xml", xml(*parts))
  return "voc", src, {"zero_based": True}


def voc_of_supervision(draw, put):
  draw("images/a.png")
  return (
    "voc",
    put(
      "annotations/a.xml", '<?xml version="1.0" ?>\n' + xml(thing(6, 4, 20, 9), name="a.png")
    ).parents[1],
    {},
  )


def voc_of_roboflow(draw, put):
  draw("train/a_jpg.rf.01.jpg"), draw("valid/b_jpg.rf.02.jpg"), put("README.dataset.txt", "pets\n")
  polygon = "<polygon><x1>6</x1><y1>4</y1><x2>20</x2><y2>4</y2><x3>20</x3><y3>9</y3></polygon>"
  put("valid/b_jpg.rf.02.xml", xml(name="b_jpg.rf.02.jpg"))
  src = put("train/a_jpg.rf.01.xml", xml(thing(6, 4, 20, 9, polygon), name="a_jpg.rf.01.jpg"))
  return "voc", src.parents[1], {"split": "train"}


def voc_of_label_studio(draw, put):
  draw("images/a.png")
  return "voc", put("Annotations/a.xml", xml(thing(6, 4, 20, 9), name="a")).parents[1], {}


def voc_of_labelme(draw, put):
  draw("Images/a.jpg")
  points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((6, 4), (20, 4), (20, 9)))
  gone = f"<object><name>dog</name><deleted>1</deleted><polygon>{points}</polygon></object>"
  item = f"<object><name>cat</name><deleted>0</deleted><polygon>{points}</polygon></object>"
  text = f"<annotation><filename>a.jpg</filename><imagesize><nrows>30</nrows></imagesize>{item}{gone}</annotation>"
  return "voc", put("Annotations/a.xml", text).parents[1], {}


def voc_of_rolabelimg(draw, put):
  draw("a.jpg")
  turned = "<cx>13</cx><cy>6.5</cy><w>5</w><h>14</h><angle>1.5707963267948966</angle>"
  item = f"<object><type>robndbox</type><name>cat</name><robndbox>{turned}</robndbox></object>"
  return "voc", put("a.xml", xml(item)).parent, {}


def voc_of_oxford_pets(draw, put):
  (
    draw("images/a.jpg"),
    put("annotations/xmls/._a.xml", "\0\5"),
    put("annotations/list.txt", "a 1\n"),
  )
  return "voc", put("annotations/xmls/a.xml", xml(thing(6, 4, 20, 9))).parents[2], {}


def csv_of_tensorflow(draw, put):
  draw("a.jpg")
  text = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,30,cat,5,3,20,9\n"
  return "csv", put("_annotations.csv", text), {}


def csv_of_open_images(draw, put):
  draw("train/000002b66c9c498e.jpg")
  head = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"
  line = "000002b66c9c498e,xclick,{},1,{},0,{}\n"
  text = f"{head}\n{line.format('cat', '0.125,0.5,0.1,0.3', 0)}{line.format('crowd', '0,1,0,1', 1)}"
  return "csv", put("train-annotations-bbox.csv", text), {}


def csv_of_retinanet(draw, put):
  draw("images/a.jpg"), draw("images/b.jpg")
  return "csv", put("train.csv", "/data/images/b.jpg,,,,,\n/data/images/a.jpg,5,3,20,9,cat\n"), {}


def csv_of_via(draw, put):
  draw("a.jpg")
  shape = {"name": "polygon", "all_points_x": POLYGON[::2], "all_points_y": POLYGON[1::2]}
  quoted = [json.dumps(v).replace('"', '""') for v in (shape, {"class": "cat"}, {"name": "point"})]
  text = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
  text += (
    f'a.jpg,90,"{{}}",2,0,"{quoted[0]}","{quoted[1]}"\na.jpg,90,"{{}}",2,1,"{quoted[2]}","{{}}"\n'
  )
  return "csv", put("via_project.csv", text), {}


def csv_of_boxes_with_other_names(draw, put):
  draw("a.jpg")
  text = "photo;animal;x_min;y_min;x_max;y_max\na.jpg;cat;5.0;3;2e1;9\n"
  return "csv", put("t.csv", text), {"columns": {"image": "photo", "label": "animal"}}


OBJECTS = [
  csv_of_tensorflow, csv_of_open_images, csv_of_retinanet, csv_of_via, csv_of_boxes_with_other_names,
  coco_of_cvat, coco_of_roboflow, coco_of_label_studio, coco_of_label_studio_with_local_files,
  coco_of_via, coco_of_hasty, coco_of_fiftyone, coco_of_anylabeling, coco_of_supervisely,
  coco_keypoints, coco_with_categories_by_id, coco_of_mmdetection, coco_of_lvis_with_boxes_alone,
  coco_in_utf_16, coco_in_utf_16_without_a_byte_order_mark, coco_of_lvis_0_5,
  coco_beside_pictures_in_folders_of_supervisely, coco_with_names_from_before_the_upload, yolo_of_windows, yolo_of_ultralytics, yolo_of_roboflow, yolo_of_supervision, yolo_of_cvat,
  yolo_of_darknet_on_another_machine, yolo_of_label_studio, yolo_of_labelimg, voc_of_labelimg,
  voc_of_cvat, voc_of_supervision, voc_of_roboflow, voc_of_label_studio, voc_of_labelme,
  voc_of_rolabelimg, voc_of_oxford_pets,
]  # fmt: skip


@pytest.mark.parametrize("dialect", OBJECTS, ids=lambda f: f.__name__)
def test_the_cat_is_where_it_is(draw, put, convert, dialect):
  format, src, options = dialect(draw, put)
  source, _ = convert(format, src, **options)
  (record,) = source
  (item,) = record["objects"]
  assert item["label"] == "cat" and item["box"] == pytest.approx(BOX, abs=1e-3)
  if "mask" in item:
    np.testing.assert_array_equal(masks.decode_rle(item["mask"]), MASK)
  assert checks.findings({"path": source.path, "task": "detect"}) == []


def test_colours_of_a_drawing_go_to_the_objects_whose_box_they_fit(draw, put, convert):
  format, src, options = voc_of_datumaro(draw, put)
  source, said = convert(format, src, **options)
  bare, sea, cat = source[0]["objects"]
  assert (bare["box"], "mask" in bare) == ([30, 1, 35, 7], False)
  np.testing.assert_array_equal(masks.decode_rle(cat["mask"]), MASK)
  assert masks.decode_rle(sea["mask"]).sum() == 400 and not counts(said)


def test_names_are_texts_whatever_yaml_makes_of_them(draw, put, convert):
  format, src, options = yolo_with_lists_and_a_name_that_yaml_reads_as_false(draw, put)
  (record,) = convert(format, src, **options)[0]
  assert [o["label"] for o in record["objects"]] == ["no"]


def tsv_with_a_byte_order_mark(draw, put):
  draw("pics/a.png")
  text = "\ufeffimage\tprefix\tsuffix\npics\\a.png\tcaption en\ta red cat\n"
  return "csv", put("t.tsv", text), {}


def csv_of_excel_in_utf_16(draw, put):
  draw("a.png")
  path = put("t.txt", "")
  path.write_text("sep=\t\nimage\tsuffix\na.png\ta red cat\n\t\n", "utf-16")
  return "csv", path, {"prefix": "caption en"}


def csv_of_kaggle_captions(draw, put):
  src = draw("Images/a.png").parents[1]
  path = put("captions.txt", "image,caption\na.png,a red cat\n")
  options = {
    "columns": {"suffix": "caption"},
    "prefix": "caption en",
    "images": str(src / "Images"),
  }
  return "csv", path, options


def csv_with_bars_and_spaces(draw, put):
  draw("a.png")
  path = put("results.csv", "image_name| comment_number| comment\na.png| 0| a red cat\n")
  return (
    "csv",
    path,
    {"columns": {"image": "image_name", "suffix": "comment"}, "prefix": "caption en"},
  )


def coco_captions_without_sizes(draw, put):
  draw("train2017/a.png")
  data = {
    "images": [{"id": 9, "file_name": "a.png", "width": None, "height": None}],
    "annotations": [{"id": 1, "image_id": 9, "caption": " a red cat\n"}],
  }  # fmt: skip
  return "coco", put("annotations/captions_train2017.json", data), {}


def folders_of_splits_in_a_folder_around_them(draw, put):
  draw("pets/train/a red cat/a.png"), draw("pets/val/a dog/b.png"), put("pets/train/.DS_Store", "x")
  return (
    "folders",
    put("pets/README.txt", "x").parents[1],
    {"split": "train", "prefix": "caption en"},
  )


TEXTS = [
  tsv_with_a_byte_order_mark, csv_of_excel_in_utf_16, csv_of_kaggle_captions,
  csv_with_bars_and_spaces, coco_captions_without_sizes, folders_of_splits_in_a_folder_around_them,
]  # fmt: skip


@pytest.mark.parametrize("dialect", TEXTS, ids=lambda f: f.__name__)
def test_the_sentence_is_read(draw, put, convert, dialect):
  format, src, options = dialect(draw, put)
  ((record,),) = (convert(format, src, **options)[0],)
  suffix = record["suffix"]
  assert (record["prefix"], suffix if isinstance(suffix, str) else suffix[0]) == (
    "caption en",
    "a red cat",
  )
  assert checks.findings({"path": str(put("x", "").parent / "out.jsonl")}) == []


ENCODINGS = [
  "gb2312",
  "gbk",
  "big5",
  "shift_jis",
  "euc-kr",
  "windows-1252",
  "utf-16",
  "utf-16-be",
  "UTF8",
]
NAMES = {"shift_jis": "\u732b", "euc-kr": "\uace0\uc591\uc774", "windows-1252": "ch\u00e2t"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_xml_in_any_declared_encoding(draw, put, convert, encoding):
  draw("a.jpg")
  name = NAMES.get(encoding, "\u8239")
  text = f'<?xml version="1.0" encoding="{encoding}"?>\n' + xml(thing(6, 4, 20, 9, name=name))
  path = put("a.xml", "")
  path.write_bytes(text.encode(encoding))
  ((record,),) = (convert("voc", path.parent)[0],)
  assert record["objects"] == [{"label": name, "box": BOX}]


def declared(encoding, data=b"<annotation/>"):
  return b'<?xml version="1.0" encoding="' + encoding + b'"?>' + data


@pytest.mark.parametrize(
  "data, words",
  [
    (declared(b"klingon"), 'a.xml: the declared encoding "klingon" is unknown; save'),
    (declared(b"rot13"), 'a.xml: the declared encoding "rot13" is unknown'),
    (declared(b"", b"<annotation/>"), 'a.xml: the declared encoding "" is unknown'),
    (declared(b"utf-8", b"\n\xb4\xac"), "a.xml:2: not UTF-8; save the file as UTF-8"),
    (declared(b"utf-16", b"<annotation/>"), "an XML file of <annotation> without"),
    (b"<annotations><image name='a.jpg'/></annotations>", "of <annotations> without .*Pascal VOC"),
    (b"<a>&b;</a>", "a.xml:1: broken XML"),
    (b"", "a.xml:1: broken XML"),
    (xml("<object><name>cat</name><pose/></object>").encode(),
     r"object 1: no bndbox and no polygon \(found: name, pose\); draw a box"),
    (xml("<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>").encode(),
     "object 1: bndbox: no ymin; wanted a number"),
    (xml(thing("9" * 5000, 4, 20, 9)).encode(), "object 1: bndbox: xmin is .9999.*wanted a number"),
  ],
)  # fmt: skip
def test_what_is_no_voc_is_one_line(draw, put, convert, data, words):
  draw("a.jpg")
  path = put("a.xml", "")
  path.write_bytes(data)
  with pytest.raises(errors.UserError, match=words) as e:
    convert("voc", path.parent)
  assert "\n" not in str(e.value)


REFUSED = {
  "a panoptic file": ("coco", coco(None, {"segments_info": []}), "panoptic annotations"),
  "results of a detector": ("coco", [{"image_id": 1, "bbox": XYWH, "score": 1}], 'no list "images"'),
  "a project of VIA": ("coco", {"a.png90": {"filename": "a.png", "regions": []}}, 'no list "images"'),
  "a file of LabelMe": ("coco", {"shapes": [], "imagePath": "a.png"}, 'no list "images"'),
  "lines of Labelbox": ("coco", '{"data_row": {}}\n{"data_row": {}}\n', "a:2: broken JSON, Extra data"),
  "no categories": ("coco", {k: v for k, v in coco().items() if k != "categories"},
                    r"no category with the id 1 .*found: none"),
  "key points of YOLO": ("yolo", "names: [cat]\nkpt_shape: [17, 3]\n", "key points"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_of_another_kind_is_refused_in_one_line(draw, put, convert, what):
  draw("a.png")
  format, content, words = REFUSED[what]
  with pytest.raises(errors.UserError, match=words) as e:
    convert(format, put("a" if format == "coco" else "a.yaml", content))
  assert "\n" not in str(e.value)


def test_pictures_that_are_called_alike_are_not_guessed(draw, put, convert):
  draw("pics/b/1/a.png"), draw("pics/c/1/a.png")
  src = put("a.json", coco({"file_name": "elsewhere/a.png"}))
  with pytest.raises(errors.UserError, match="both called as elsewhere/a.png is; give its folder"):
    convert("coco", src)
  src = put("b.json", coco({"file_name": "/data/C/1/A.PNG"}))
  source, said = convert("coco", src)
  assert source[0]["image"] == "pics/c/1/a.png"
  assert counts(said) == {"pictures found by the end of their path": 1}


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "..", "a\nb", "\ud83d"])
def test_names_that_no_file_can_have_are_one_line(draw, put, convert, name):
  draw("a.png"), put("labels/a.txt", f"0 {CENTRE}")
  voc = put("Annotations/a.xml", xml(thing(6, 4, 20, 9))).parents[1]
  put("ImageSets/Main/train.txt", "").write_bytes(name.encode("utf-8", "surrogatepass"))
  put("train.txt", "").write_bytes(name.encode("utf-8", "surrogatepass"))
  yaml = put("data.yaml", json.dumps({"train": name, "names": ["cat"]}))
  lists = put("lists.yaml", json.dumps({"train": "train.txt", "names": ["cat"]}))
  file = put("i.json", coco({"file_name": name}))
  for format, src in (("voc", voc), ("yolo", yaml), ("yolo", lists), ("coco", file)):
    with pytest.raises(errors.UserError):
      convert(format, src)


@pytest.mark.parametrize(
  "there, named",
  [
    ("images/0.png", r"images\0.png"),
    ("images/0.png", r"C:\data\set\images\0.png"),
    ("images/0.png", "file:///C:/data/images/0.png"),
    ("images/0.png", "https://host/set/images/0.png?token=1"),
    ("images/a b+c.png", "images/a%20b+c.png"),
    ("images/a%20b.png", "images/a%20b.png"),
    ("images/0.JPG", "0.jpg"),
    ("images/0.png", "0"),
    ("images/0.png", "images/0.jpg"),
    ("images/cafe\u0301.png", "caf\u00e9.png"),
    ("images/a.png", "0123abcd-a.png"),
    ("images/0123abcd-a.png", "0123abcd-a.png"),
    ("images/train/0.png", "/home/me/set/train/0.png"),
  ],
)
def test_a_picture_is_found_by_the_name_of_another_system(draw, put, convert, there, named):
  draw(there)
  source, said = convert("coco", put("a.json", coco({"file_name": named})))
  assert source[0]["image"] == there
  assert set(counts(said)) <= {"pictures found by the end of their path"}


def test_what_macos_leaves_beside_every_file_is_passed_over(draw, put, convert):
  draw("images/a.png"), put("labels/a.txt", f"0 {CENTRE}"), put("labels/._a.txt", "\0")
  put("images/._a.png", "\0"), put("._data.yaml", "\0"), put("images/b.heic", "x")
  source, said = convert("yolo", put("data.yaml", "names: [cat]").parent)
  assert len(source) == 1 and counts(said) == {
    "files that systems and archives leave behind, left out": 1,
    "files that are no pictures, left out (.heic)": 1,
  }
  put("Annotations/a.xml", xml(thing(6, 4, 20, 9))), put("Annotations/._a.xml", "\0")
  src = put("ImageSets/Main/train.txt", "a").parents[2]
  put("ImageSets/Main/._train.txt", "\0")
  assert len(convert("voc", src, "voc.jsonl")[0]) == 1
