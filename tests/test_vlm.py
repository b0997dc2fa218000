"""Load, ask, save: the object that users hold."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

import paligemma_jax as pg
from paligemma_jax import errors, sharding, vlm
from paligemma_jax.decode import generate as decoding
from paligemma_jax.decode.samplers import until_eos
from paligemma_jax.models import paligemma, vqvae
from paligemma_jax.processing import processor
from tests import golden, toy
from tests.decode import golden_batch


@pytest.fixture
def one_device():
  return jax.sharding.Mesh(np.array(jax.devices()[:1]), ("fsdp",))


def make(family="paligemma2", codec=None, **settings):
  config = toy.config(family, **settings)
  return vlm.VLM(
    model=paligemma.PaliGemma(config),
    params=sharding.unflatten(toy.flat_params(config)),
    processor=processor.Processor(
      toy.tokenizer(), config.img.res, config.img.num_tokens, "bicubic"
    ),
    config=config,
    codec=codec,
  )


def answer(model):
  batch = model.processor(images=list(toy.pictures()[:2]), prompts=["caption en", "detect cat"])
  return pg.generate(model, batch, max_new_tokens=6)


@pytest.mark.parametrize("name", ["out.npz", "hf", "orbax"])
@pytest.mark.parametrize("family", ["paligemma", "paligemma2"])
def test_what_is_saved_loads_with_all_that_is_needed_and_answers_the_same(tmp_path, family, name):
  codec = {
    k: np.full(s, 0.5, np.float32) for k, s in vqvae.param_shapes(hidden=2, embedding=4).items()
  }
  settings = {"final_logits_softcap": 5.0} if family == "paligemma2" else {}  # no Gemma 1 has one
  model = make(family, codec, **settings)
  pg.save(model, tmp_path / name, format=name.removesuffix(".npz") if "." not in name else None)
  loaded = pg.load(tmp_path / name)
  assert loaded.config == model.config
  assert loaded.processor.resize == "bicubic"
  assert set(loaded.codec) == set(codec)
  for key, x in sharding.flatten(model.params).items():
    np.testing.assert_array_equal(sharding.flatten(loaded.params)[key], x, err_msg=key)
  a, b = answer(model), answer(loaded)
  assert a.text == b.text
  np.testing.assert_array_equal(a.tokens, b.tokens)
  np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)


def test_settings_and_resolution_can_be_overridden(tmp_path):
  model = make()
  pg.save(model, tmp_path / "m.npz")
  loaded = pg.load(
    tmp_path / "m.npz",
    config={"final_logits_softcap": 7.0, "res": 56, "resize": "bilinear", "alpha": "white"},
  )
  assert loaded.config == model.config.replace(final_logits_softcap=7.0, res=56)
  assert loaded.params["img"]["pos_embedding"].shape == (1, 16, 24)
  assert (loaded.processor.res, loaded.processor.resize) == (56, "bilinear")
  assert loaded.processor.alpha == "white"
  with pytest.raises(errors.UserError, match='did you mean "final_logits_softcap"'):
    pg.load(tmp_path / "m.npz", config={"final_logit_softcap": 7.0})


def test_a_checkpoint_without_a_tokenizer_loads_and_says_what_is_missing_when_asked():
  model = pg.load(golden.weights_path("pg1_tiny"))
  with pytest.raises(errors.UserError, match="no tokenizer.*--tokenizer"):
    model.processor(images=[toy.pictures()[0]], prompts=["caption en"])


@pytest.mark.parametrize("tag", golden.TAGS)
def test_golden_logits_and_tokens_through_the_npz(tag, one_device):
  io, sizes = golden.io(tag), golden.config(tag)["llm"]
  settings = {
    "attn_logits_softcap": sizes.get("attn_logits_softcap", 0.0),
    "final_logits_softcap": 0.0,
  }
  vlm = pg.load(golden.weights_path(tag), config=settings, mesh=one_device)
  args = io["image"], io["text"][:, :-1], io["mask_ar"][:, :-1]
  logits, _ = vlm.model.apply({"params": vlm.params}, *args)
  np.testing.assert_allclose(logits, io["out_logits"], atol=2e-4, rtol=0)

  samplers = {"greedy": io["out_greedy_tokens"]}
  for n in golden.config(tag)["beam_sizes"]:
    samplers[f"beam:{n}"] = io[f"out_beam{n}_tokens"]
  for sampler, want in samplers.items():
    batch = sharding.put_batch(golden_batch.batch(tag), vlm.mesh, vlm.model.rules)
    tokens, _ = decoding.generate(
      vlm.model, vlm.params, batch, max_new_tokens=want.shape[1], sampler=sampler
    )
    kept = np.asarray(until_eos(want, 1))
    np.testing.assert_array_equal(tokens, np.where(kept, want, 0), err_msg=sampler)


@pytest.mark.parametrize("tag", golden.TAGS)
def test_the_hugging_face_folder_is_the_same_model_as_the_npz(tag, one_device):
  path = golden.DIR / f"{tag}_hf"
  said = json.loads((path / "config.json").read_text())["text_config"]
  unsaid_by_shapes = {
    "attn_logits_softcap": said.get("attn_logit_softcapping") or 0.0,
    "final_logits_softcap": said.get("final_logit_softcapping") or 0.0,
    "sliding_window": said.get("sliding_window") or 0,
  }
  folder = pg.load(path, mesh=one_device)
  npz = pg.load(golden.weights_path(tag), config=unsaid_by_shapes, mesh=one_device)
  assert folder.config == npz.config
  jax.tree.map(np.testing.assert_array_equal, folder.params, npz.params)


def test_a_batch_is_filled_up_to_the_devices_with_rows_that_do_not_count():
  model = make("paligemma")
  mesh = sharding.make_mesh({"data": 1, "fsdp": 8})
  there = types.SimpleNamespace(mesh=mesh, model=types.SimpleNamespace(rules=sharding.FSDP))
  batch = model.processor(images=list(toy.pictures())[:3], prompts=["a", "bb", "ccc"])
  filled = vlm._filled_up(there, batch)
  assert filled.valid.tolist() == [True] * 3 + [False] * 5
  placed = vlm._placed(there, filled)
  np.testing.assert_array_equal(placed.text[:3], batch.text)
  assert {shard.data.shape[0] for shard in placed.image.addressable_shards} == {1}


def test_parameters_of_several_processes_are_not_saved_by_one(tmp_path):
  model = make("paligemma")
  elsewhere = types.SimpleNamespace(is_fully_addressable=False)
  model = dataclasses.replace(model, params={"img": {"pos_embedding": elsewhere}})
  with pytest.raises(errors.UserError, match="`paligemma convert` makes any format"):
    pg.save(model, tmp_path / "a.npz")
