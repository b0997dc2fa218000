"""A toy model of random weights, evaluated as training and notebooks do it."""

import json
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import paligemma_jax
from paligemma_jax import sharding
from paligemma_jax.evals import objects, predictions, report, runner
from paligemma_jax.metrics import matching
from paligemma_jax.models import paligemma, vqvae
from paligemma_jax.processing import masks, processor
from tests import toy

TASKS = {"answer": ("text", "exact_match"), "boxes": ("detect", "boxes")}
TASKS |= {"segment": ("segment", "masks"), "nll": ("text", "perplexity")}
SAMPLERS = {"answer": "temperature:1.0"}


@pytest.fixture(scope="module")
def vlm():
  cfg = toy.config()
  params = sharding.unflatten({k: jnp.asarray(v) for k, v in toy.flat_params(cfg).items()})
  made = processor.Processor(toy.tokenizer(), cfg.img.res, cfg.img.num_tokens, text_len=48)
  model = paligemma.PaliGemma(cfg)
  return types.SimpleNamespace(model=model, params=params, processor=made, codec=None, mesh=None)


@pytest.fixture(scope="module")
def codec():
  rng = np.random.default_rng(0)
  shapes = vqvae.param_shapes()
  return {k: (rng.normal(size=s) * 0.05).astype(np.float32) for k, s in shapes.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """Five pictures with a question, its answer, and a cat with box and mask."""
  folder = tmp_path_factory.mktemp("data")
  lines = []
  for i in range(5):
    picture = toy.pictures()[i % 4]
    Image.fromarray(picture).save(folder / f"{i}.png")
    mask = np.zeros(picture.shape[:2], bool)
    mask[2:14, 1:8] = True
    thing = {"label": "cat", "box": [1, 2, 8, 14], "mask": masks.encode_rle(mask)}
    lines.append({"image": f"{i}.png", "prefix": "caption en", "suffix": ["no", "yes"]})
    lines[-1] |= {"objects": [thing], "question_id": 100 + i}
  path = folder / "val.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return str(path)


def _config(path, batch_size, limit=0):
  evals = {
    name: {
      "data": {"kind": "jsonl", "path": path, "task": task, "prefix": "", "suffix": "", "where": ""},
      "metric": metric, "max_new_tokens": 4, "batch_size": batch_size, "sampler": SAMPLERS.get(name, "greedy"), "limit": limit,
    }
    for name, (task, metric) in TASKS.items()
  }  # fmt: skip
  return {"evals": evals, "seed": 0, "input": {"text_len": 48}}


def _run(vlm, codec, config, mesh=None, rules=None, names=None):
  made = vlm.model, vlm.params, vlm.processor, codec, mesh, rules
  return runner.run_config(config, *made, names=names, progress=False)


@pytest.fixture(scope="module")
def results(vlm, codec, source):
  return _run(vlm, codec, _config(source, batch_size=2))


def test_every_example_has_one_row_with_all_that_the_data_says(results):
  for name, (_, rows) in results.items():
    assert [row["question_id"] for row in rows] == [100, 101, 102, 103, 104], name
    assert all(row["scores"] for row in rows)
    assert [(row["height"], row["width"]) for row in rows] == [
      p.shape[:2] for p in (*toy.pictures(), toy.pictures()[0])
    ]


def test_prompts_are_those_of_the_task(results):
  assert results["answer"][1][0]["prefix"] == "caption en"
  assert results["boxes"][1][0]["prefix"] == "detect cat"
  assert results["segment"][1][0]["prefix"] == "segment cat"


def test_results_do_not_depend_on_the_batch_size_even_when_sampling(vlm, codec, source, results):
  ((_, rows),) = _run(vlm, codec, _config(source, batch_size=5), names=["answer"]).values()
  texts = [row["prediction"] for row in results["answer"][1]]
  assert [row["prediction"] for row in rows] == texts
  assert len(set(texts)) > 1


def test_samples_are_drawn_anew_with_another_seed(vlm, codec, source, results):
  config = _config(source, batch_size=2) | {"seed": 1}
  ((_, rows),) = _run(vlm, codec, config, names=["answer"]).values()
  texts = [row["prediction"] for row in results["answer"][1]]
  assert [row["prediction"] for row in rows] != texts


def test_constrained_answers_are_boxes_with_a_score(vlm, codec, source):
  config = _config(source, batch_size=2)
  config["evals"]["boxes"] |= {"constrain": "detect", "max_new_tokens": 24}
  ((_, rows),) = _run(vlm, codec, config, names=["boxes"]).values()
  for row in rows:
    assert row["prediction"].count("<loc") == 4 * row["prediction"].count("cat")
    assert all(o["label"] == "cat" and 0 <= o["score"] <= 1 for o in row["pred_objects"])
    assert not {k for k in row if "log" in k}


def test_the_likeliest_of_given_answers_is_the_answer(vlm, codec, source):
  config = _config(source, batch_size=2)
  config["evals"]["answer"]["answers"] = ("yes", "no", "{prefix}", "yes, no")
  ((scores, rows),) = _run(vlm, codec, config, names=["answer"]).values()
  assert len(rows) == 5 and 0 <= scores["exact_match"] <= 1
  for row in rows:
    assert {s["answer"] for s in row["scored"]} == {"yes", "no", "caption en", "yes, no"}
    assert row["prediction"] == row["scored"][0]["answer"]
    probs = [s["prob"] for s in row["scored"]]
    assert probs == sorted(probs, reverse=True) and sum(probs) == pytest.approx(1)
  made = [{**row, "image": picture} for row, picture in zip(rows, toy.pictures())]
  got = paligemma_jax.evaluate(vlm, made, answers=("yes", "no", "{prefix}", "yes, no"))
  want = np.mean([row["prediction"] in ("yes", "no") for row in rows[:4]])
  assert got["exact_match"] == want


def test_examples_whose_picture_cannot_be_read_are_left_out_and_counted(
  vlm, codec, source, results, tmp_path
):
  folder = shutil.copytree(pathlib.Path(source).parent, tmp_path / "data")
  (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:90])
  config = _config(str(folder / "val.jsonl"), batch_size=2)
  config["input"]["max_unreadable"] = 1
  ((scores, rows),) = _run(vlm, codec, config, names=["answer"]).values()
  want = [row for row in results["answer"][1] if row["question_id"] != 101]
  assert [(r["question_id"], r["prediction"]) for r in rows] == [
    (r["question_id"], r["prediction"]) for r in want
  ]
  assert scores["unreadable"] == 1.0 and "unreadable" not in results["answer"][0]


def test_on_a_mesh_of_eight_devices_the_same(vlm, codec, source, results):
  mesh = sharding.make_mesh({"data": 1, "fsdp": 8})
  rules = (("batch", ("data", "fsdp")),)
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  vlm = types.SimpleNamespace(**{**vars(vlm), "params": jax.device_put(vlm.params, everywhere)})
  names = ("boxes", "nll")  # three at a time are made eight
  got = _run(vlm, codec, _config(source, batch_size=3), mesh, rules, names)
  for name, (scores, rows) in got.items():
    assert scores == pytest.approx(results[name][0], rel=1e-4)
    want = [row.get("prediction") for row in results[name][1]]
    assert [row.get("prediction") for row in rows] == want


def test_evaluate_splits_batches_over_the_mesh_of_the_model(vlm, source, monkeypatch):
  mesh, placed = sharding.make_mesh({"data": 1, "fsdp": 8}), []

  def measure(self, batches):
    placed.extend((self._put(batch), rows) for batch, rows in batches)
    return ({},)

  monkeypatch.setattr(runner.Evaluator, "measure", measure)
  model = paligemma.PaliGemma(vlm.model.config, rules=sharding.FSDP)
  on_mesh = types.SimpleNamespace(**{**vars(vlm), "mesh": mesh, "model": model})
  runner.evaluate(on_mesh, source, "perplexity", batch_size=3)
  ((batch, rows),) = placed
  assert len(rows) == 5 and batch.valid.tolist() == [True] * 5 + [False] * 3
  assert {shard.data.shape[0] for shard in batch.text.addressable_shards} == {1}


def test_the_ceiling_is_what_the_codec_leaves_of_the_truth(codec, results):
  scores, rows = results["segment"]
  assert scores["mask_iou"] == 0  # random weights name no box
  ious = []
  for row in rows:
    mask, box = row["objects"][0]["mask"], row["objects"][0]["box"]
    codes = vqvae.encode(codec, jnp.asarray(masks.crop_for_codec(mask, box))[None])
    decoded = objects.decode(codec, np.asarray(codes))[0]
    y0, y1 = (round(v / row["height"] * 1023) / 1023 * row["height"] for v in (box[1], box[3]))
    x0, x1 = (round(v / row["width"] * 1023) / 1023 * row["width"] for v in (box[0], box[2]))
    ious.append(matching.mask_iou(mask, masks.paste(decoded, (x0, y0, x1, y1), *mask.shape)))
  assert scores["mask_iou_ceiling"] == pytest.approx(np.mean(ious))
  assert scores["mask_iou_ceiling"] > 0


def test_the_limit_keeps_the_first_examples(vlm, codec, source):
  config = _config(source, batch_size=2, limit=3)
  ((_, rows),) = _run(vlm, codec, config, names=["answer"]).values()
  assert [row["id"] for row in rows] == [0, 1, 2]


def test_the_public_function_scores_a_file_as_a_config_does(vlm, codec, source, results):
  vlm = types.SimpleNamespace(**vars(vlm) | {"codec": codec})  # as the checkpoint has it
  for name, (_, metric) in TASKS.items():
    got = paligemma_jax.evaluate(
      vlm,
      source,
      metric,
      max_new_tokens=4,
      batch_size=2,
      sampler=SAMPLERS.get(name, "greedy"),
    )
    assert got == pytest.approx(results[name][0], rel=1e-4), name


def test_the_public_function_takes_rows_in_memory_and_a_metric_of_ones_own(vlm):
  rows = [{"image": p, "prefix": "caption en", "suffix": "yes"} for p in toy.pictures()[:3]]
  seen = []
  score = lambda rows: (
    seen.extend(rows) or {"length": float(np.mean([len(r["prediction"]) for r in rows]))}
  )
  got = paligemma_jax.evaluate(vlm, rows, score, max_new_tokens=4, batch_size=2)
  assert got["length"] > 0 and len(seen) == 3
  assert paligemma_jax.evaluate(vlm, rows, "perplexity", batch_size=2)["avg"] > 0


def test_predictions_and_report_of_a_run(tmp_path, results):
  for name, (_, rows) in results.items():
    predictions.write(tmp_path, name, rows)
  lines = [
    {"step": 1} | {f"eval/{n}/{m}": v for n, (s, _) in results.items() for m, v in s.items()}
  ]
  (tmp_path / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
  page = report.write_report(tmp_path).read_text()
  assert page.count("data:image/jpeg") == 20  # five pictures of four evaluations
  assert "mask_iou" in page and "ceiling" in page
  ((row, *_),) = [predictions.read(tmp_path / "predictions/segment.jsonl")]
  assert (row["objects"][0]["mask"] == results["segment"][1][0]["objects"][0]["mask"]).all()
