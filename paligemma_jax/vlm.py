"""Model, parameters, processor and settings as one object: load it, ask it, save it."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from paligemma_jax import errors, exchange, sharding, structs
from paligemma_jax.checkpoint import adapt, adapted, formats
from paligemma_jax.checkpoint import load as loading
from paligemma_jax.decode import generate as decoding
from paligemma_jax.decode import grammar
from paligemma_jax.decode import score as scoring
from paligemma_jax.models import paligemma, tree, variants, vqvae, weights
from paligemma_jax.processing import processor as processing

CODEC = "mask_codec.npz"  # the asset that holds the mask codec a model was trained with


@dataclasses.dataclass(frozen=True)
class VLM:
  """A vision-language model that is ready to use.

  Example:
      vlm = pg.load("paligemma2-3b-mix-448/")
      batch = vlm.processor(images=[picture], prompts=["caption en"])
      print(pg.generate(vlm, batch, max_new_tokens=20).text[0])
  """

  model: paligemma.PaliGemma  # the module: `vlm.model.apply({"params": vlm.params}, …)`
  params: dict  # plain nested dict with the names of the published npz files
  processor: processing.Processor  # pictures and strings -> Batch; tokens -> strings
  config: variants.ModelConfig  # dimensions and settings
  codec: dict | None = None  # parameters of `models.vqvae`, when the checkpoint carries one
  mesh: jax.sharding.Mesh | None = None  # where the parameters lie; None: one device
  # The opened checkpoint: adapters are checked with it.
  source: Any = dataclasses.field(default=None, repr=False)


def load(
  ckpt: str | os.PathLike,
  *,
  param_dtype: str | None = None,
  dtype: str | None = None,
  mesh: jax.sharding.Mesh | None = None,
  rules: sharding.Rules = sharding.FSDP,
  tokenizer: str | os.PathLike | None = None,
  codec: str | os.PathLike | None = None,
  config: dict[str, Any] | None = None,
  adapter: str | os.PathLike | None = None,
  quant: str | None = None,
) -> VLM:
  """Loads a checkpoint of any format; variant, resolution and dtype are read off the files.

  Args:
    ckpt: a big_vision `.npz`, a Hugging Face folder or Hub id, an Orbax checkpoint, or a workdir
      (its newest complete checkpoint); of one that trained adapters, with its base.
    param_dtype: of the weights in memory, "float32", "bfloat16" or "float16"; None: as stored, on
      a CPU at least float32, which multiplies faster there.
    dtype: of the computation; None: bfloat16 on TPU and GPU, float32 on CPU.
    mesh: where the parameters go; None: over all devices ("fsdp"), without a mesh on one.
    rules: logical axis -> mesh axes.
    tokenizer: file or folder; None: beside the checkpoint, else $PALIGEMMA_TOKENIZER. A
      checkpoint without a tokenizer loads; its processor says what is missing when it is used.
    codec: npz of the mask codec; None: the checkpoint's own, if it has one.
    config: overrides of what shapes cannot tell: final_logits_softcap, attn_logits_softcap (0.0
      is off), sliding_window (0 is off), query_pre_attn_norm, resize, alpha; and res, in pixels, to
      resample the position embedding to.
    adapter: a PEFT folder, or a run that trained adapters, to use beside the weights; see
      `with_adapter` for several.
    quant: the form of the weights in memory: "int8", "int4", "int4-32", "nf4" or "nf4-dq" (double
      quantisation) for all but the table, "nf4:decoder" and the like for a part (docs/adapters.md);
      "float": no few bits; None: as the checkpoint has them.

  Raises:
    UserError: no such checkpoint, one that is incomplete or damaged, or an unknown setting; an adapter
      that does not belong to it.
  """
  source = formats.open(ckpt)
  if adapter is not None:
    source = adapted.with_adapter(source, os.fspath(adapter))
  if source.config is None:
    raise errors.UserError(
      f"{ckpt} holds only part of a model ({len(source.shapes)} tensors); a whole one is needed here"
    )
  settings, preprocessing = adapt.settings(config or {})
  model_config = source.config.replace(**settings)
  if mesh is None and len(jax.devices()) > 1:
    mesh = sharding.make_mesh({"data": 1, "fsdp": -1, "tensor": 1})
  rules = rules if mesh is not None else None
  forms = adapted.forms(source, model_config, quant)
  params = loading.load_params(source, model_config, param_dtype, mesh, rules, quant=forms)
  model = paligemma.PaliGemma(model_config, dtype or default_dtype(), rules=rules)
  processor = make_processor(source, model_config, tokenizer, **preprocessing)
  return VLM(model, params, processor, model_config, find_codec(source, codec), mesh, source)


def with_adapter(vlm: VLM, adapter: str | os.PathLike) -> VLM:
  """The same model with an adapter beside its weights, which both share.

      base = pg.load("paligemma2-3b-pt-448/", quant="nf4-dq")
      birds, plants = (pg.with_adapter(base, run) for run in ("runs/birds", "runs/plants"))

  Adapters of the same modules and rank run the same compiled programs.

  Args:
    vlm: from `load`, without an adapter.
    adapter: a PEFT folder, or a run that trained adapters.

  Raises:
    UserError: there is no adapter, or it does not belong to the model.
  """
  if vlm.source is None:
    raise errors.UserError(
      "with_adapter takes a model that `load` returned: adapters are checked with its files"
    )
  source = adapted.with_adapter(vlm.source, os.fspath(adapter))
  flat = sharding.flatten(vlm.params)
  new = loading.load_adapter(source, vlm.config, flat, vlm.mesh, vlm.model.rules)
  # A weight in few bits may have a new value.
  flat = {n: x for n, x in flat.items() if n.rpartition("/")[0] not in new} | new
  return dataclasses.replace(vlm, params=sharding.unflatten(flat), source=source)


def generate(
  vlm: VLM,
  batch: structs.Batch,
  *,
  max_new_tokens: int = 64,
  sampler: str = "greedy",
  seed: int = 0,
  rows: Any = None,
  mask_logits: Any = None,
  constrain: str | None = None,
) -> structs.Output:
  """Answers a batch of prompts (B rows) with at most `max_new_tokens` (M) tokens each.

  Processes that share the model's mesh all call it with the same batch, and get the same.

  Args:
    vlm: the model.
    batch: from `vlm.processor`; rows of different lengths, with a piece of suffix or without.
    max_new_tokens: M.
    sampler: "greedy", "temperature:T", "top_k:K", "nucleus:P", "beam:N" or "best_of:N:T".
    seed: of the random samplers.
    rows: int[B], the rows' positions in a larger whole, so that what is sampled does not depend on
      how that is cut into batches; None: 0 … B-1.
    mask_logits: tokens never to be taken: ids, or bool[V] with True for these.
    constrain: "detect" or "segment" keeps the answers to well-formed boxes of the labels that the
      prompts name, "refer" to one box with a mask; see `decode.grammar.build`. None or "": no.

  Returns:
    Output with text (up to EOS), tokens int32[B, M], logprobs float32[B, M].

  Raises:
    UserError: an unknown sampler or constraint, a prompt that names no labels.
  """
  count, rows = len(batch.text), None if rows is None else np.asarray(rows)
  batch = _filled_up(vlm, batch)
  rules = make_rules(vlm.processor, vlm.config, batch, constrain, max_new_tokens)
  if rows is not None:
    rows = np.pad(rows, (0, len(batch.text) - count))
  with sharding.use(vlm.mesh):
    tokens, logprobs = decoding.generate(
      vlm.model,
      vlm.params,
      _placed(vlm, batch),
      max_new_tokens=max_new_tokens,
      sampler=sampler,
      seed=seed,
      rows=rows,
      mask_logits=mask_logits,
      rules=rules,
    )
  tokens, logprobs = (exchange.fetch(x)[:count] for x in (tokens, logprobs))
  text, spans = vlm.processor.decode(tokens), vlm.processor.spans(tokens)
  return structs.Output(text, tokens, logprobs, spans)


def _filled_up(vlm: VLM, batch: structs.Batch) -> structs.Batch:
  """The batch with rows that are not `valid` after its own, so that it divides over the devices."""
  more = sharding.whole_batch(len(batch.text), vlm.mesh, vlm.model.rules) - len(batch.text)
  if not more:
    return batch
  last = structs.Batch(*(np.repeat(np.asarray(x)[-1:], more, axis=0) for x in batch))
  last = last._replace(valid=np.zeros(more, bool))
  return structs.Batch(*(np.concatenate(pair) for pair in zip(batch, last)))


def _placed(vlm: VLM, batch: structs.Batch) -> structs.Batch:
  """A batch that every process has, on the model's devices."""
  if vlm.mesh is None:
    return batch
  here = sharding.rows_here(vlm.mesh, vlm.model.rules, len(batch.text))
  batch = structs.Batch(*(np.asarray(x)[here] for x in batch))
  return sharding.put_batch(batch, vlm.mesh, vlm.model.rules)


def score(
  vlm: VLM, batch: structs.Batch, answers: Sequence[str] | Sequence[Sequence[str]]
) -> structs.Scored:
  """The exact log-probabilities of given answers: multiple choice, classification, confidence.

      batch = vlm.processor(images=[picture], prompts=["answer en is it day or night?"])
      print(pg.score(vlm, batch, ["day", "night"]).probs[0])

  Args:
    vlm: the model.
    batch: from `vlm.processor`, B prompts.
    answers: of every prompt alike, or a list for each prompt.

  Returns:
    Scored with answers, logprobs and probs: for each prompt float64[A] of its A answers, natural
    logarithms with EOS included, and their shares.

  Raises:
    UserError: no answers, or lists for another number of prompts.
  """
  if not len(answers):
    raise errors.UserError("no answers to score; give at least one")
  is_shared = isinstance(answers[0], str)
  lists = [list(answers)] * len(batch.text) if is_shared else [list(row) for row in answers]
  if len(lists) != len(batch.text):
    raise errors.UserError(
      f"{len(lists)} lists of answers for {len(batch.text)} prompts; give one each"
    )
  encode = vlm.processor.need_tokenizer().encode
  ids = [[encode(answer) for answer in row] for row in lists]
  batch = _filled_up(vlm, batch)
  ids += [[]] * (len(batch.text) - len(ids))
  with sharding.use(vlm.mesh):
    found = scoring.logprobs(vlm.model, vlm.params, _placed(vlm, batch), ids, fetch=exchange.fetch)
  found = found[: len(lists)]
  return structs.Scored(lists, found, [scoring.normalised(x) for x in found])


def make_rules(
  processor: processing.Processor,
  config: variants.ModelConfig,
  batch: structs.Batch,
  constrain: str | None,
  max_new_tokens: int,
  gather: Callable[[list], list] = lambda rows: rows,
) -> grammar.Grammar | None:
  """The grammar of the answers to a batch; None where nothing constrains them.

  Args:
    processor, config: of the model.
    batch: prompts, not yet on devices, without a piece of an answer.
    constrain, max_new_tokens: as `generate`.
    gather: prompts of this process -> prompts of all, where several share the batch.
  """
  if not constrain:
    return None
  tokenizer, vocab_size = processor.need_tokenizer(), config.llm.vocab_size
  prompts = gather(processor.prompts(batch))
  return grammar.build(tokenizer, vocab_size, constrain, prompts, max_new_tokens)


def save(
  vlm: VLM, path: str | os.PathLike, format: str | None = None, dtype: str | None = None
) -> None:
  """Writes everything that is needed to use the model again, whole or not at all.

  Args:
    vlm: the model.
    path: `NAME.npz`, or a folder that does not exist yet or is empty.
    format: "npz", "hf" or "orbax": an adapter is merged, few bits become floats; "peft": the adapter
      alone. None: npz for a path that ends so, else hf.
    dtype: "float32", "bfloat16" or "float16"; None: as in memory, float32 of what is merged or widened.

  Raises:
    UserError: the destination exists, format or dtype is unknown, the parameters lie on several
      processes, or an adapter cannot be merged.
  """
  flat = sharding.flatten(vlm.params)
  if not all(getattr(x, "is_fully_addressable", True) for x in flat.values()):
    raise errors.UserError(
      f"{path}: the parameters lie on the devices of {jax.process_count()} processes, and one file is"
      " written by one; `paligemma convert` makes any format of the checkpoints that train writes"
    )

  if format == "peft":
    _save_adapter(vlm, path, dtype)
    return
  form, leaves = tree.form_of({n: x.shape for n, x in flat.items()}), tree.plain(vlm.config)
  if tree.TABLE in form.adapters or any(one.bias for one in form.adapters.values()):
    what = "of the table" if tree.TABLE in form.adapters else "with biases on B"
    raise errors.UserError(
      f'{path}: an adapter {what} is not merged here; save it alone, with format="peft". The table is the'
      " output matrix as well; biases are merged by `paligemma convert`"
    )

  def read(name: str, layer: int | None = None) -> np.ndarray:
    if name not in form.quant and name not in form.adapters:
      x = flat[name] if layer is None else flat[name][layer]
      return np.asarray(x)
    leaf = leaves[name]
    w = weights.take(flat, name, layer)
    return np.asarray(weights.published(w, leaf if layer is None else leaf.layer))

  formats.save(path, read, vlm.config, assets(vlm.processor, vlm.codec), dtype, format)


def _save_adapter(vlm: VLM, path: str | os.PathLike, dtype: str | None) -> None:
  """The folder of peft of the adapter beside a model; its numbers are those of its file."""
  if vlm.source is None:
    raise errors.UserError('format="peft" saves the adapter of a model that `load` returned')
  adapted.save(vlm.source, os.fspath(path), dtype)


def assets(processor: processing.Processor, codec: dict | None) -> dict[str, bytes]:
  """The files a checkpoint carries besides weights: tokenizer, preprocessing, mask codec."""
  files = dict(processor.to_files())
  if codec is not None:
    files[CODEC] = vqvae.to_bytes(codec)
  return files


def default_dtype(platform: str | None = None) -> str:
  """Of the computation: bfloat16 where the hardware (None: of this process) multiplies it, else
  float32.
  """
  return "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"


def make_processor(
  source: Any,
  config: variants.ModelConfig,
  tokenizer: str | os.PathLike | None = None,
  resize: str | None = None,
  alpha: str | None = None,
) -> processing.Processor:
  """The processor of an opened checkpoint, or one for `config` when `source` is None.

  The tokenizer is the one given, else the checkpoint's, else that of $PALIGEMMA_TOKENIZER.

  Raises:
    UserError: a file is damaged, or the tokenizer has more tokens than the model's table rows.
  """
  made = processing.Processor.from_files(
    {} if source is None else source.assets,
    res=config.img.res,
    num_image_tokens=config.img.num_tokens,
    resize=resize,
    alpha=alpha,
    tokenizer=tokenizer,
    place="" if source is None else source.path,
  )
  if made.tokenizer is not None:
    made.tokenizer.check_rows(config.llm.vocab_size)
  return made


def find_codec(source: Any, path: str | os.PathLike | None = None) -> dict | None:
  """The mask codec at `path`, else the one that the opened checkpoint carries, else None."""
  if path:
    return vqvae.load(path)
  data = None if source is None else source.assets.get(CODEC)
  return None if data is None else vqvae.from_bytes(data, f"{source.path}: {CODEC}")
