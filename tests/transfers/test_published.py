"""Every config beside what is published about its task, entry by entry of transfers.json."""

import pytest

from paligemma_jax.train import recipes
from tests.transfers import references

# (entry, what) -> why our config differs from it.
EXCEPTIONS = {
  ("coco35l", "epochs"): "counted in examples of all languages, as the reference's config does",
  ("coco35l", "train"): "35 sources, one for each language",
  ("chartqa", "train"): "two sources of these splits, weighted by their sizes",
  ("pope", "text_len"): "48 in pope.py; beside VQAv2 its 32",
  ("pope", "dataset"): "the builder registers pope/pope_random, which the reference's config omits",
  ("pope", "batch_size"): "not given by the reference: the trainer's",
  ("text_det_rec", "train"): "seven data sets, their names instead of splits",
  ("objaverse_multiview", "all"): "neither renderings nor the way answers are joined are published",
  ("mix", "train"): "what it was trained on is not published: evaluated only",
  ("paligemma2_mix", "train"): "the same",
  ("refcoco_seg", "text_len"): "48 as published; answers always have 20 tokens",
  ("table_structure", "text_len"): "the longest answer; prompt and answer together have as many",
}
# Whose test split has no answers: a server scores what is predicted.
ON_A_SERVER = {
  "aokvqa_da", "aokvqa_mc", "docvqa", "infovqa", "stvqa", "textvqa", "vizwizvqa", "vqav2",
}  # fmt: skip
NOTHING_TO_MEASURE = {"aokvqa_mc/test/pplx"}  # the reference takes the last option for the answer
METRICS = {  # the reference's evaluator -> ours
  "coco_caption": {"cider", "caption", "nocaps"}, "vqav2": {"vqa_v2"}, "vqa": {"vqa", "vqa_lower"},
  "chartqa": {"relaxed_accuracy"}, "segmentation": {"refseg"},
}  # fmt: skip
PROMPTS = {  # a prompt that transfers.json describes -> as a template
  "aokvqa_mc": "answer en  {question} choose from: {multiple_choice_possible_answers: \t }",
  "ai2d": "answer en  {question} choose from: {possible_answers: \t }",
  "science_qa": "Question: {question}\nContext: {hint}\nOptions: {indexed_choices}\nAnswer:",
  "pope": "answer en {question}",
  "docci": "caption en",
}
RUNS = [
  (entry, int(res), h)
  for entry in references.ENTRIES
  for res, h in (entry["hparams"] or {}).items()
  if h
]
TRAINED = [e for e in references.ENTRIES if e["train_split_tune"]]
EVALUATED = [
  (e, one)
  for e in references.ENTRIES
  for one in e["evals"] or ()
  if one["name"] not in NOTHING_TO_MEASURE
]


def config(entry, arg=""):
  return references.module(entry["id"]).get_config(arg)


def agree(entry, what, found, want):
  """Whether they are equal, where the entry says anything and is no exception."""
  return want is None or (entry["id"], what) in EXCEPTIONS or found == want


def plain(split):
  return split.replace(" ", "")


def entry_id(value):
  return value["id"] if isinstance(value, dict) and "id" in value else None


@pytest.mark.parametrize("entry, res, h", RUNS, ids=[f"{e['id']}-{r}" for e, r, _ in RUNS])
def test_settings_of_the_published_run(entry, res, h):
  c = config(entry, f"res={res},final")
  found = {
    "epochs": c.train.epochs, "steps": c.train.steps, "batch_size": c.train.batch_size,
    "lr": c.train.lr, "wd": c.train.weight_decay, "llm_dropout": c.model.dropout,
    "label_smoothing": c.train.label_smoothing, "freeze_vit": c.train.freeze == ("img/.*",),
  }  # fmt: skip
  assert not {k: (v, h[k]) for k, v in found.items() if not agree(entry, k, v, h.get(k))}
  samplers = {e.sampler for e in c.evals.values() if e.metric in ("cider", "nocaps", "caption")}
  if h["decode"] and "beam" in h["decode"]:
    assert samplers == {h["decode"].replace("beam n=", "beam:")}
  else:
    assert samplers <= {"greedy"}
  assert c.model.res == res and c.model.init == f"pt_{res}.npz"


def test_the_optimizer_is_the_references():
  t = recipes.resolve(references.module("vqav2").get_config().train.to_dict())
  assert (t["optimizer"], t["b1"], t["b2"], t["grad_clip_norm"]) == ("adam", 0.9, 0.999, 1.0)
  assert t["schedule"] == {"decay_type": "cosine", "warmup_percent": 0.05}
  assert t["wd_mults"] == ((".*/kernel$", 1.0),)


@pytest.mark.parametrize("entry", TRAINED, ids=lambda e: e["id"])
@pytest.mark.parametrize("final", [False, True])
def test_splits_that_are_trained_on(entry, final):
  want = entry["train_split_final" if final else "train_split_tune"].split(" (")[0]
  (source, *_) = config(entry, "final" if final else "").train.data.values()
  assert agree(entry, "train", plain(source.split), plain(want))


@pytest.mark.parametrize("entry", references.ENTRIES, ids=lambda e: e["id"])
def test_lengths_pictures_and_prompts(entry):
  if (entry["id"], "all") in EXCEPTIONS:
    return
  c = config(entry, f"res={entry['resolutions'][0]}" if entry["resolutions"] else "")
  assert agree(entry, "text_len", c.input.text_len, entry["text_len"])
  if entry["max_decode_len"] and entry["text_len"] and entry["id"] != "pope":
    assert {e.max_new_tokens for e in c.evals.values() if e.metric != "perplexity"} == {
      entry["max_decode_len"]
    }
  for source in c.train.data.values() if entry["train_split_tune"] else ():
    resize = source.resize or c.input.resize
    assert agree(entry, "antialias", resize == "bilinear_antialias", entry["antialias_train"])
    if entry["num_frames"]:
      assert (source.frames, source.stride) == (entry["num_frames"], entry["frame_stride"])
    elif entry["num_images"]:
      pictures = [theirs for ours, theirs in source.fields if ours == "image"] or ["image"]
      assert len(pictures) == entry["num_images"]
    wanted = PROMPTS.get(entry["id"], (entry["prefix_train"] or "").replace("{lang}", "{language}"))
    assert source.prefix == wanted
    assert source.augment == ()
    lower = entry["lowercase_train_targets"]
    assert agree(entry, "lower", source.lower, lower)
    assert source.draw == draw(entry["answer_sampling"])


def draw(words):
  if "object without replacement" in words:
    return "object"
  if "without replacement" in words:
    return "each"
  return "shuffle" if "shuffled" in words or "random" in words else "any"


DETECTION = [e for e in references.ENTRIES if e["id"].endswith("_detection")]


@pytest.mark.parametrize("entry", DETECTION, ids=lambda e: e["id"])
def test_detection_asks_for_all_classes_in_random_order_filled_with_noise(entry):
  c = config(entry)
  (source,) = c.train.data.values()
  assert (source.prefix, source.draw, source.task) == (entry["prefix_train"], "shuffle", "detect")
  assert "noise boxes" in entry["suffix_train"] and c.input.truncate
  assert source.noise * 6 >= c.input.text_len - 2  # 4 places, a label, a separator
  assert {e.constrain for name, e in c.evals.items() if "pplx" not in name} == {"detect_all:*"}


@pytest.mark.parametrize("entry", DETECTION, ids=lambda e: e["id"])
@pytest.mark.parametrize(
  "variant, name",
  [("", "PaliGemma 3B"), ("pg2_3b", "PaliGemma 2 3B"), ("pg2_10b", "PaliGemma 2 10B")],
)
def test_scores_of_detection(entry, variant, name):
  for res, value in entry["scores_paligemma2_paper"][name].items():
    (expected,) = config(entry, f"res={res},variant={variant}").expect.values()
    assert expected.value == pytest.approx(value / 100)


@pytest.mark.parametrize("entry, one", EVALUATED, ids=[e["name"] for _, e in EVALUATED])
def test_evaluations(entry, one):
  c = config(entry)
  parent = references.PARENTS.get(entry["id"], entry["id"])
  ours = c.evals[references.evaluation(one["name"], parent)]
  if one["evaluator"] == "perplexity":
    assert ours.metric == "perplexity" and ours.batch_size == c.train.batch_size
  else:
    on_a_server = entry["id"] in ON_A_SERVER and one["name"].endswith("/test")
    known = {""} if on_a_server else METRICS.get(one["evaluator"], {one["evaluator"]})
    assert ours.metric in known
    if one["evaluator"] == "vqa" and not on_a_server:
      assert (ours.metric == "vqa_lower") == bool(entry["evaluator_to_lower"])
    want = one["batch_size"] or entry["eval_batch_size"]
    assert agree(entry, "batch_size", ours.batch_size, want)
    antialias = (ours.data.resize or c.input.resize) == "bilinear_antialias"
    assert agree(entry, "antialias", antialias, entry["antialias_eval"])
    prefix = (entry["prefix_eval"] or "").replace("{lang}", "{language}")
    asked = "{question}" if parent == "pope" else PROMPTS.get(entry["id"], prefix)
    assert ours.data.prefix == asked
  assert plain(ours.data.split) == plain(one["split"])
  assert agree(entry, "dataset", ours.data.path, one["dataset"])
  assert ours.every == pytest.approx(one["every_fraction_of_training"])


PG2 = [
  (e, name, size, int(res), value, (e.get("scores_paligemma2_paper_std") or {})[name][size][res])
  for e in references.ENTRIES
  for name, sizes in (e["scores_paligemma2_paper"] or {}).items()
  if isinstance(sizes, dict) and "3b" in sizes
  for size, by_res in sizes.items()
  for res, value in by_res.items()
  if value is not None
]


@pytest.mark.parametrize(
  "entry, name, size, res, value, std", PG2, ids=[f"{n}-{s}-{r}" for _, n, s, r, _, _ in PG2]
)
def test_scores_of_paligemma_2(entry, name, size, res, value, std):
  runs = [config(entry, f"res={res},variant=pg2_{size}{final}") for final in ("", ",final")]
  found = {(e["value"], e["std"]) for c in runs for e in c.expect.to_dict().values()}
  assert (round(value / 100, 6), round(std / 100, 6)) in found


PG1 = [
  (e, name, int(res), value, ((e.get("scores_paligemma_paper_std") or {}).get(name) or {}).get(res))
  for e in references.ENTRIES
  if (e["id"], "all") not in EXCEPTIONS
  for name, by_res in (e["scores_paligemma_paper"] or {}).items()
  if isinstance(by_res, dict)
  for res, value in by_res.items()
  if value is not None
]


@pytest.mark.parametrize(
  "entry, name, res, value, std", PG1, ids=[f"{e['id']}-{n}-{r}" for e, n, r, _, _ in PG1]
)
def test_scores_of_paligemma(entry, name, res, value, std):
  if entry["id"] == "pope":
    entry = {"id": "vqav2"}
  runs = [config(entry, f"res={res}{final}") for final in ("", ",final")]
  found = {(e["value"], e["std"]) for c in runs for e in c.expect.to_dict().values()}
  assert (round(value / 100, 6), std and round(std / 100, 6)) in found


RATES = (3e-7, 6e-7, 1e-6, 3e-6, 6e-6, 1e-5, 3e-5)
SWEPT = [e for e in references.ENTRIES if e["pg2_lr_sweep_224"] and not e["zero_shot_of"]]


@pytest.mark.parametrize("entry", SWEPT, ids=lambda e: e["id"])
def test_rates_of_paligemma_2_are_the_best_of_the_published_sweep(entry):
  for size in ("3b", "10b", "28b"):
    best = {
      rate
      for sizes in entry["pg2_lr_sweep_224"].values()
      for rate, score in zip(RATES, sizes.get(size) or ())
      if score == max(sizes[size])
    }
    if best:
      assert config(entry, f"variant=pg2_{size}").train.lr in best
