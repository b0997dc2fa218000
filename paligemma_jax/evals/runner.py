"""Answers the examples of an evaluation and scores the answers.

The only place that joins data, decoding and scores. The training loop and `paligemma eval` call
`run_config`, notebooks `evaluate`.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from paligemma_jax import errors, exchange, metrics, sharding, structs
from paligemma_jax import vlm as vlms
from paligemma_jax.data import pipeline, tasks
from paligemma_jax.decode import generate as decoding
from paligemma_jax.decode import score as scoring
from paligemma_jax.evals import checks, hosts, memory, objects, perplexity, predictions

log = logging.getLogger("paligemma_jax")

Batches = Iterable[tuple[structs.Batch, list[dict]]]
Scores = dict[str, float]
_SURE = "spans and log-probabilities"  # key of a row until its boxes are read


def run(
  batches: Batches,
  answer: Callable[[structs.Batch, list[dict]], list[dict]],
  score: Callable[[list[dict]], Scores],
  gather: Callable[[list[dict]], list[dict]] = lambda rows: rows,
) -> tuple[Scores, list[dict]]:
  """Answers every batch, gathers the rows of all hosts, scores once.

  Args:
    batches: pairs (Batch, rows); one dict per real example, padding already left out.
    answer: (Batch, rows) -> what each row gets, "prediction" at least.
    score: a function from `metrics/`: rows -> {name: value}.
    gather: rows of this host -> rows of all hosts, each example once; may add to them.

  Returns:
    (scores, rows), the same on every host; the rows are what predictions/NAME.jsonl gets, each
    with the "scores" of its own.
  """
  rows = []
  for batch, examples in batches:
    answers = answer(batch, examples)
    rows += [{**row, **one} for row, one in zip(examples, answers, strict=True)]
  rows = gather(rows)
  return score(rows), metrics.with_scores(score, rows)


class Evaluator:
  """A model with all that is needed to answer and score examples.

  Args:
    model: `models.paligemma.PaliGemma`.
    params: where they lie, on `mesh` if there is one.
    processor: makes texts of tokens.
    codec: parameters of `models.vqvae`, for masks; None: there are none.
    mesh, rules: how to split batches; None: one device.
    seed: of random samplers.
  """

  def __init__(
    self,
    model: Any,
    params: dict,
    processor: Any,
    codec: dict | None = None,
    mesh: jax.sharding.Mesh | None = None,
    rules: sharding.Rules = None,
    seed: int = 0,
  ):
    self.model, self.params, self.processor, self.codec = model, params, processor, codec
    self.mesh, self.rules, self.seed = mesh, rules, seed

  def answer(
    self,
    batches: Batches,
    score: Callable,
    max_new_tokens: int,
    sampler: str,
    has_objects: bool = False,
    constrain: str = "",
    answers: Sequence[str] = (),
  ) -> tuple[Scores, list[dict]]:
    """Answers and scores.

    Beside "mask_iou" or "miou" stands "…_ceiling" where the true suffixes hold codes: what the true
    masks reach after the codec, which a perfect answer cannot beat.

    Args:
      batches: pairs (this process's Batch, rows), every batch of one shape.
      score: a function from `metrics/`.
      max_new_tokens: longest answer.
      sampler: as `decode.samplers.parse` reads it.
      has_objects: whether to read answers for boxes and masks; rows get "pred_objects".
      constrain: as `vlm.generate`; "": answers are free.
      answers: among which to choose instead of generating, "{field}" for those in a key of the row;
        rows get "scored", [{"answer", "logprob", "prob"}], likeliest first. (): none.
    """
    read = self._read if has_objects else lambda rows: rows
    if answers:
      answer = self.chooser(answers)
    else:
      answer = self.generator(max_new_tokens, sampler, constrain, has_objects)
    places: list[int] = []
    batches = hosts.placed(batches, places, self._rows)
    scores, rows = run(batches, answer, score, lambda rows: read(hosts.gathered(rows, places)))
    name = next((name for name in ("mask_iou", "miou") if name in scores), None)
    told = [_first(row.get("suffix")) for row in rows] if name and self.codec is not None else []
    if told and all("<seg" in text for text, row in zip(told, rows) if row["objects"]):
      truths = read([{**row, "prediction": text} for row, text in zip(rows, told)])
      scores = {**scores, f"{name}_ceiling": score(truths)[name]}
    return scores, rows

  def measure(self, batches: Batches) -> tuple[Scores, list[dict]]:
    """Scores of the true suffixes, in nats; batches have the training layout."""
    places: list[int] = []
    rows = list(perplexity.measure(hosts.placed(batches, places, self._rows), self._nll))
    rows = hosts.gathered(rows, places)
    score = metrics.METRICS["perplexity"]
    return score(rows), metrics.with_scores(score, rows)

  def generator(
    self, max_new_tokens: int, sampler: str, constrain: str = "", has_objects: bool = False
  ) -> Callable[[structs.Batch, list[dict]], list[dict]]:
    """Returns the `answer` of `run` that generates; for `has_objects` with what scores boxes."""
    params = decoding.decode_params(self.params)  # once, not for every batch
    done = 0  # rows of all processes before this batch: samples do not depend on the batch size

    def answer(batch, rows):
      nonlocal done
      here, size = self._rows(batch)
      numbers = np.arange(done, done + size)
      done += size
      everywhere = lambda prompts: exchange.by_place(prompts, here.tolist())
      rules = vlms.make_rules(
        self.processor, self.model.config, batch, constrain, max_new_tokens, everywhere
      )
      with self._on_mesh():
        found = decoding.generate(
          self.model,
          params,
          self._put(batch),
          max_new_tokens=max_new_tokens,
          sampler=sampler,
          seed=self.seed,
          rows=numbers,
          rules=rules,
        )
      tokens, logprobs = (hosts.local(x, here)[np.asarray(batch.valid)] for x in found)
      texts = [{"prediction": text} for text in self.processor.decode(tokens)]
      if not has_objects:
        return texts
      sure = zip(self.processor.spans(tokens), logprobs.tolist())
      return [{**t, _SURE: (spans, logprobs)} for t, (spans, logprobs) in zip(texts, sure)]

    return answer

  def chooser(self, answers: Sequence[str]) -> Callable[[structs.Batch, list[dict]], list[dict]]:
    """Returns the `answer` of `run` that takes the likeliest of given ones; see `answer`."""
    params = decoding.decode_params(self.params)
    encode = self.processor.need_tokenizer().encode

    def answer(batch, rows):
      lists, (here, _) = [checks.choices(answers, row) for row in rows], self._rows(batch)
      ids = [[encode(text) for text in one] for one in lists]
      valid = iter(ids)  # a row that only fills the batch has no answers
      ids = [next(valid) if v else [] for v in batch.valid]
      everywhere = exchange.by_place(ids, here.tolist())
      with self._on_mesh():
        found = scoring.logprobs(
          self.model, params, self._put(batch), everywhere, fetch=exchange.fetch
        )
      mine = [found[row] for row, v in zip(here, batch.valid) if v]
      return [_scored(*pair) for pair in zip(lists, mine, strict=True)]

    return answer

  def _nll(self, batch):
    with self._on_mesh():
      total, mean = perplexity.nll_terms(self.model, self.params, self._put(batch))
    here, _ = self._rows(batch)
    return hosts.local(total, here), hosts.local(mean, here)

  def _rows(self, batch: structs.Batch) -> tuple[np.ndarray, int]:
    """(which rows of the whole batch those of this process's are, size of the whole)."""
    size = sharding.global_size(len(batch.valid), self.mesh, self.rules)
    return sharding.rows_here(self.mesh, self.rules, size), size

  def _read(self, rows: list[dict]) -> list[dict]:
    """The rows with the "pred_objects" of their predictions; one without truths has none."""
    found = []
    for row in rows:
      spans, logprobs = row.pop(_SURE, ((), ()))
      guesses = objects.parse(row["prediction"], row["height"], row["width"], spans, logprobs)
      found.append({**row, "objects": row.get("objects") or [], "pred_objects": guesses})
    found = objects.with_masks(found, "pred_objects", self.codec)
    return objects.with_masks(found, "objects", self.codec)

  def _on_mesh(self):
    return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

  def _put(self, batch: structs.Batch) -> structs.Batch:
    return batch if self.mesh is None else sharding.put_batch(batch, self.mesh, self.rules)


def run_config(
  config: Mapping[str, Any],
  model: Any,
  params: dict,
  processor: Any,
  codec: dict | None,
  mesh: jax.sharding.Mesh | None,
  rules: sharding.Rules,
  names: Iterable[str] | None = None,
  progress: bool = True,
  watch: Callable[[], None] = lambda: None,
  keep: Callable[[str, Scores, list[dict]], None] = lambda name, scores, rows: None,
) -> dict[str, tuple[Scores, list[dict]]]:
  """Runs the evaluations of a config; {name: (scores, rows)} as `run` returns them.

  Args:
    config: the whole config of a run; read are "evals", "seed" and "input.text_len".
    model, params, processor, codec, mesh, rules: as `Evaluator`.
    names: which evaluations, in this order; None: all.
    progress: whether to show a bar on a terminal.
    watch: called before every batch; may raise.
    keep: called as `keep(name, scores, rows)` when an evaluation is done, before the next begins.

  Raises:
    errors.UserError: an unknown name or metric, unreadable data, masks without a codec.
  """
  evals = config["evals"]
  chosen = list(evals) if names is None else list(names)
  for name in chosen:
    if name not in evals:
      raise errors.UserError(f"evals.{name} is unknown{errors.did_you_mean(name, evals)}")
  scores = {name: metrics.resolve(evals[name]["metric"], f"evals.{name}.metric") for name in chosen}
  for name in chosen:
    checks.check_codec(scores[name], codec, checks.SET_CODEC, f"evals.{name}: ")
  evaluator = Evaluator(model, params, processor, codec, mesh, rules, config["seed"])
  results = {}
  for name in chosen:
    one, is_likelihood = evals[name], scores[name] is metrics.METRICS["perplexity"]
    batch_size = sharding.whole_batch(one["batch_size"], mesh, rules)
    batches = pipeline.eval_batches(
      one["data"],
      processor,
      batch_size=batch_size,
      text_len=config["input"]["text_len"],
      limit=one["limit"] or None,
      with_suffix=is_likelihood,
      codec=codec,
      rows=sharding.rows_here(mesh, rules, batch_size),
      max_unreadable=config["input"].get("max_unreadable", 0),
      truncate=config["input"].get("truncate", False),
    )
    with contextlib.closing(batches):
      shown = tqdm.tqdm(
        batches, name, unit="batch", leave=False, disable=None if progress else True
      )
      shown = _watched(shown, watch)
      if is_likelihood:
        results[name] = evaluator.measure(shown)
      else:
        has_objects = {one["data"]["task"], checks.task_of(scores[name])} - set(tasks.TEXTS)
        results[name] = evaluator.answer(
          shown,
          scores[name],
          one["max_new_tokens"],
          one["sampler"],
          bool(has_objects),
          one.get("constrain", ""),
          one.get("answers", ()),
        )
      results[name] = _with_unreadable(*results[name], batches.unreadable)
    keep(name, *results[name])
  return results


def evaluate(
  vlm: Any,
  rows: list[dict] | str | os.PathLike,
  metric: str | Callable[[list[dict]], Scores] = "exact_match",
  *,
  max_new_tokens: int = 64,
  batch_size: int = 8,
  sampler: str = "greedy",
  codec: dict | None = None,
  constrain: str = "",
  answers: Sequence[str] = (),
) -> Scores:
  """Scores of a model's answers to examples held in memory or in a JSONL file.

      pg.evaluate(vlm, [{"image": "cat.jpg", "prefix": "answer en what?", "suffix": "cat"}])

  Args:
    vlm: as `paligemma_jax.load` gives it.
    rows: dicts with "image" (path, Pillow picture or uint8[H, W, 3]; a list for several),
      "prefix", "suffix", and for boxes and masks "objects", or <loc> tokens in the suffix; or the
      path of a JSONL file, whose "objects" become detect or segment prompts if the metric is
      "boxes" or "masks".
    metric: a name in `metrics.METRICS`, or rows -> {name: value}.
    max_new_tokens: longest answer.
    batch_size: examples at a time.
    sampler: as `paligemma generate --sampler`.
    codec: parameters of `models.vqvae`, for masks; None: the model's own.
    constrain: as `generate`.
    answers: among which to choose instead of generating; "{field}" for those in a key of the row.

  Where all answers are the same string though the truths differ, the log "paligemma_jax" warns.

  Raises:
    errors.UserError: an unknown metric, a picture or line that cannot be read, no rows, or none
      with something to compare with.
  """
  score, codec = metrics.resolve(metric), vlm.codec if codec is None else codec
  is_likelihood, task = score is metrics.METRICS["perplexity"], checks.task_of(score)
  checks.check_codec(score, codec, "give codec=vqvae.load(FILE)")
  checks.check_rows(memory.truths(rows, task), score, answers)
  pairs = memory.examples(rows, task, codec, vlm.processor.alpha)
  mesh, axis_rules = vlm.mesh, vlm.model.rules
  batch_size = sharding.whole_batch(batch_size, mesh, axis_rules)
  here = sharding.rows_here(mesh, axis_rules, batch_size)
  batches = memory.batches(pairs, vlm.processor, batch_size, is_likelihood, here)
  evaluator = Evaluator(vlm.model, vlm.params, vlm.processor, codec, mesh, axis_rules)
  if is_likelihood:
    return evaluator.measure(batches)[0]
  how = max_new_tokens, sampler, task != "text", constrain, answers
  scores, rows = evaluator.answer(batches, score, *how)
  if said := predictions.monotony(rows):
    log.warning(said)
  return scores


def _watched(batches: Batches, watch: Callable[[], None]) -> Batches:
  for pair in batches:
    watch()
    yield pair


def _with_unreadable(scores: Scores, rows: list[dict], unreadable: dict[str, str]):
  """The results with the number of examples that were left out, if there are any."""
  count = len(set(exchange.gather(list(unreadable))))
  return ({**scores, "unreadable": float(count)} if count else scores), rows


def _scored(answers: list[str], logprobs: np.ndarray) -> dict:
  """What a row gets whose answers have these log-probabilities."""
  probs = scoring.normalised(logprobs)
  order = np.argsort(-logprobs, kind="stable")
  scored = [
    {"answer": answers[k], "logprob": float(logprobs[k]), "prob": float(probs[k])} for k in order
  ]
  return {"prediction": scored[0]["answer"], "scored": scored}


def _first(suffix: str | list[str] | None) -> str:
  return suffix if isinstance(suffix, str) else (suffix or [""])[0]
