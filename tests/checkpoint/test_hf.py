import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats, hf, lazy, names, shards
from tests import golden, toy
from tests.checkpoint import toys

REPORTS = pathlib.Path(__file__).parents[1] / "data/reports"


def tensors(folder) -> dict:
  """All tensors of a folder, read with the safetensors library."""
  return {
    k: v for p in folder.glob("*.safetensors") for k, v in safetensors.numpy.load_file(p).items()
  }


def rewrite(folder, change):
  """Passes the tensors of a single-file folder through `change`."""
  found = tensors(folder)
  safetensors.numpy.save_file(
    change(found) or found, folder / "model.safetensors", {"format": "pt"}
  )


def edit(folder, change, file="config.json"):
  """Passes config.json through `change`."""
  d = json.loads((folder / file).read_text())
  change(d)
  (folder / file).write_text(json.dumps(d))


@pytest.mark.parametrize("tag", golden.TAGS)
def test_golden_folders_hold_the_golden_weights(tag):
  source = formats.open(golden.DIR / f"{tag}_hf")
  wanted = golden.weights(tag)
  assert sorted(source.arrays) == sorted(wanted)
  for name, x in wanted.items():
    np.testing.assert_array_equal(source.read(name).astype(np.float32), x, err_msg=name)
  source.verify()
  stored, llm = golden.config(tag)["llm"], source.config.llm
  for key in ("attn_logits_softcap", "final_logits_softcap", "vocab_size", "head_dim"):
    assert getattr(llm, key) == stored.get(key, 0.0)


SPELLINGS = {  # published name -> name; section 2 of the shared notes on checkpoints
  "2024": lambda n: n,
  "4.52 modules": lambda n: "model." + n.replace("language_model.model.", "language_model."),
  "5 in memory": lambda n: (
    "model."
    + n.replace("language_model.model.", "language_model.").replace("tower.vision_model.", "tower.")
  ),
  "5 never loaded": lambda n: n.replace("tower.vision_model.", "tower."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("family", toys.FAMILIES)
def test_every_spelling_is_read(tmp_path, family, spelling):
  _, flat = toys.write(tmp_path / "x", family)
  rewrite(tmp_path / "x", lambda t: {SPELLINGS[spelling](k): v for k, v in t.items()})
  toys.assert_same(formats.open(tmp_path / "x"), flat)


WRAPPERS = {  # what trainers leave in the names
  "torch.compile": lambda n: "_orig_mod." + n,
  "DistributedDataParallel": lambda n: "module." + n,
  "FSDP": lambda n: "_fsdp_wrapped_module." + n,
  "peft, merged": lambda n: "base_model.model." + n,
  "a model of one's own": lambda n: "my.paligemma." + n,
  "a decoder compiled alone": lambda n: n.replace("language_model.", "language_model._orig_mod."),
  "layers wrapped one by one": lambda n: n.replace(
    ".self_attn", "._checkpoint_wrapped_module.self_attn"
  ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_of_wrappers_are_read_away(tmp_path, wrapper, spelling):
  _, flat = toys.write(tmp_path / "x")
  spell, head = SPELLINGS[spelling], "language_model.lm_head.weight"
  wrapped = lambda n: WRAPPERS[wrapper](spell(n))  # noqa: E731
  rewrite(tmp_path / "x", lambda t: {wrapped(k): v for k, v in (t | {head: t[TABLE]}).items()})
  source = formats.open(tmp_path / "x")
  toys.assert_same(source, flat)
  source.verify()


TABLE = "language_model.model.embed_tokens.weight"


def test_a_patch_embedding_with_channels_last_is_read(tmp_path):
  """As MLX writes a model that it did not quantise."""
  _, flat = toys.write(tmp_path / "x")
  name = "vision_tower.vision_model.embeddings.patch_embedding.weight"
  last = lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1))  # noqa: E731
  rewrite(tmp_path / "x", lambda t: {**t, name: last(t[name])})
  toys.assert_same(formats.open(tmp_path / "x"), flat)


def test_float64_is_read_as_float32(tmp_path):
  _, flat = toys.write(tmp_path / "x")
  rewrite(tmp_path / "x", lambda t: {k: v.astype(np.float64) for k, v in t.items()})
  toys.assert_same(formats.open(tmp_path / "x"), flat)
  rewrite(tmp_path / "x", lambda t: {**t, TABLE: t[TABLE] * 1e300})
  with pytest.raises(errors.UserError, match="values that are infinite"):
    formats.convert(tmp_path / "x", tmp_path / "y.npz")


@pytest.mark.parametrize("dtype, code", [(np.int8, "I8"), (np.uint8, "U8"), (np.bool_, "BOOL")])
def test_other_dtypes_are_named(tmp_path, dtype, code):
  toys.write(tmp_path / "x")
  rewrite(tmp_path / "x", lambda t: {k: v.astype(dtype) for k, v in t.items()})
  said = rf"unsupported dtype: language_model\..* is {code} \(so are 58 more.*read are float32"
  with pytest.raises(errors.UserError, match=said):
    formats.open(tmp_path / "x")


KINDS = {  # a tensor that only such a folder has -> words
  "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight": "adapter of peft",
  "language_model.model.layers.0.self_attn.q_proj.base_layer.weight": "adapter of peft",
  "language_model.model.layers.0.self_attn.q_proj.scales": "by MLX",
  "language_model.model.layers.0.mlp.up_proj.qweight": "by GPTQ or AWQ",
  "language_model.model.layers.0.mlp.up_proj.weight_scale_inv": "by fp8 or compressed-tensors",
  "language_model.model.layers.0.mlp.up_proj.weight.absmax": "by bitsandbytes",
  "language_model.model.layers.0.mlp.up_proj.SCB": "by bitsandbytes",
}


@pytest.mark.parametrize("name", KINDS)
def test_names_tell_adapters_and_quantised_weights(tmp_path, name):
  toys.write(tmp_path / "x")
  rewrite(tmp_path / "x", lambda t: {**t, name: np.ones(2, np.float32)})
  with pytest.raises(errors.UserError, match=KINDS[name]):
    formats.open(tmp_path / "x")


@pytest.mark.parametrize("head", ["lm_head.weight", "language_model.lm_head.weight"])
def test_an_output_matrix_must_equal_the_table(tmp_path, head):
  _, flat = toys.write(tmp_path / "x", dtype="bfloat16")
  table = "language_model.model.embed_tokens.weight"
  rewrite(tmp_path / "x", lambda t: {**t, head: t[table]})
  source = formats.open(tmp_path / "x")
  toys.assert_same(source, flat)
  source.verify()
  rewrite(tmp_path / "x", lambda t: {**t, head: t[table] + lazy.BFLOAT16.type(1)})
  with pytest.raises(errors.UserError, match="lm_head.weight differs from the embedding table"):
    formats.convert(tmp_path / "x", tmp_path / "y.npz")


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_what_is_written(tmp_path, family):
  cfg, flat = toys.write(tmp_path / "x", family, vocab_size=1501, assets={"tokenizer.model": b"t"})
  found = tensors(tmp_path / "x")
  with safetensors.safe_open(tmp_path / "x/model.safetensors", "numpy") as f:
    assert f.metadata() == {"format": "pt"}
  assert {k.split(".")[0] for k in found} == {
    "vision_tower",
    "multi_modal_projector",
    "language_model",
  }
  table = found["language_model.model.embed_tokens.weight"]
  assert table.shape == (1536, 48)  # the next multiple of 64
  np.testing.assert_array_equal(table[:1501], flat["llm/embedder/input_embedding"])
  mean = flat["llm/embedder/input_embedding"].astype(np.float64).mean(0)
  np.testing.assert_allclose(table[1501:], np.tile(mean, (35, 1)), atol=1e-8)
  o_proj = found["language_model.model.layers.1.self_attn.o_proj.weight"]
  wanted = flat["llm/layers/attn/attn_vec_einsum/w"][1].reshape(64, 48).T
  np.testing.assert_array_equal(o_proj, wanted)  # [D, N * H], and N * H is not D
  config = json.loads((tmp_path / "x/config.json").read_text())
  assert config["image_token_index"] == 1501
  assert config["text_config"]["vocab_size"] == 1536
  assert json.loads((tmp_path / "x/generation_config.json").read_text())["eos_token_id"] == 1
  assert "28 x 28 pixels" in (tmp_path / "x/README.md").read_text()
  assert (tmp_path / "x/tokenizer.model").read_bytes() == b"t"
  assert formats.open(tmp_path / "x").config == cfg


def test_norms_of_the_two_families_are_not_mixed_up():
  pick = lambda post_norms: {  # noqa: E731
    s.theirs.removeprefix("language_model.layers.0."): s.ours
    for s in names.slots({k: (1, 8) for k in NORMS}, post_norms)
  }
  assert pick(False)["post_attention_layernorm.weight"] == "llm/layers/pre_ffw_norm/scale"
  assert pick(True)["post_attention_layernorm.weight"] == "llm/layers/post_attention_norm/scale"
  assert pick(True)["pre_feedforward_layernorm.weight"] == "llm/layers/pre_ffw_norm/scale"


NORMS = [f"llm/layers/{n}/scale" for n in ("pre_ffw_norm", "post_attention_norm", "post_ffw_norm")]


def test_shards_of_limited_size_with_an_index(tmp_path, monkeypatch):
  monkeypatch.setattr(shards.write_folder, "__defaults__", (100_000,))
  _, flat = toys.write(tmp_path / "x")
  index = json.loads((tmp_path / "x" / shards.INDEX).read_text())
  files = sorted(p.name for p in (tmp_path / "x").glob("*.safetensors"))
  assert files[0] == f"model-00001-of-{len(files):05d}.safetensors" and len(files) > 3
  assert index["metadata"]["total_size"] == sum(v.nbytes for v in tensors(tmp_path / "x").values())
  toys.assert_same(formats.open(tmp_path / "x"), flat)
  (tmp_path / "x" / files[1]).unlink()
  with pytest.raises(errors.UserError, match=f"1 of {len(files)} shards are missing: {files[1]}"):
    formats.open(tmp_path / "x")


def test_published_sizes_have_the_published_number_of_tensors():
  from paligemma_jax.models import tree, variants

  counts = {"paligemma-3b": 603, "paligemma2-3b": 727, "paligemma2-10b": 903, "paligemma2-28b": 947}
  for preset, count in counts.items():
    cfg = variants.preset(preset)
    slots = list(names.slots(tree.param_shapes(cfg), cfg.llm.post_norms))
    assert len(slots) == len({s.theirs for s in slots}) == count
  cfg = variants.preset("paligemma-3b")  # total_size in float32, with 64 more rows
  numbers = sum(np.prod(s) for s in tree.param_shapes(cfg).values()) + 64 * 2048
  assert 4 * numbers == 11_693_865_920


GEMMA = {"gemma": "paligemma", "gemma2": "paligemma2"}


@pytest.mark.parametrize("kind", GEMMA)
def test_a_bare_gemma_for_initialisation(tmp_path, kind):
  cfg, flat = toys.write(tmp_path / "x", GEMMA[kind])

  def bare(found):
    head = "language_model."
    found = {k.removeprefix(head): v for k, v in found.items() if k.startswith(head)}
    found["model.embed_tokens.weight"] = found["model.embed_tokens.weight"][:1500]
    return found

  rewrite(tmp_path / "x", bare)
  text = json.loads((tmp_path / "x/config.json").read_text())["text_config"]
  text["vocab_size"] = 1500
  (tmp_path / "x/config.json").write_text(json.dumps(text))
  source = formats.open(tmp_path / "x")
  assert source.config is None
  toys.assert_same(source, {k: v for k, v in flat.items() if k.startswith("llm/")})


@pytest.mark.parametrize("spelling", ["vision_model.", ""])
def test_a_bare_siglip_for_initialisation(tmp_path, spelling):
  _, flat = toys.write(tmp_path / "x")
  head = "vision_tower.vision_model."

  def bare(found):
    tower = {spelling + k.removeprefix(head): v for k, v in found.items() if k.startswith(head)}
    other = {spelling + "head.probe": np.ones((1, 1, 24), np.float32)}
    return tower | other | {"logit_scale": np.ones(1, np.float32)}

  rewrite(tmp_path / "x", bare)
  vision = json.loads((tmp_path / "x/config.json").read_text())["vision_config"]
  whole = {"model_type": "siglip", "vision_config": vision, "text_config": {}}
  (tmp_path / "x/config.json").write_text(json.dumps(whole if spelling else vision))
  tower = {k: v for k, v in flat.items() if k.startswith("img/") and "/head/" not in k}
  toys.assert_same(formats.open(tmp_path / "x"), tower)


def test_old_buffers_are_passed_over(tmp_path):
  _, flat = toys.write(tmp_path / "x")
  ids = "vision_tower.vision_model.embeddings.position_ids"
  rewrite(tmp_path / "x", lambda t: {**t, ids: np.arange(4)[None]})
  toys.assert_same(formats.open(tmp_path / "x"), flat)


@pytest.mark.parametrize(
  "change, said",
  [
    (
      lambda t: t.pop("multi_modal_projector.linear.bias"),
      "1 missing: multi_modal_projector.linear",
    ),
    (lambda t: t.update({"extra.weight": np.ones(2)}), "1 unexpected: extra.weight"),
    (
      lambda t: t.update({"multi_modal_projector.linear.bias": np.ones(2, np.float32)}),
      r"multi_modal_projector.linear.bias is \[2\] instead of \[48\]",
    ),
  ],
)
def test_wrong_tensors_are_named_as_in_the_file(tmp_path, change, said):
  toys.write(tmp_path / "x")
  rewrite(tmp_path / "x", lambda t: [change(t)][1:])
  with pytest.raises(errors.UserError, match=said):
    formats.open(tmp_path / "x")


def test_truncated_files_are_said_to_be(tmp_path):
  toys.write(tmp_path / "x")
  data = (tmp_path / "x/model.safetensors").read_bytes()
  for size in (len(data) - 1, 1000, 5, 0):
    (tmp_path / "x/model.safetensors").write_bytes(data[:size])
    with pytest.raises(errors.UserError, match="model.safetensors.*truncated"):
      formats.open(tmp_path / "x")


def test_an_untied_model_needs_its_output_matrix(tmp_path):
  toys.write(tmp_path / "x")
  edit(tmp_path / "x", lambda d: d.update(tie_word_embeddings=False))
  with pytest.raises(
    errors.UserError, match="tie_word_embeddings is false, but there is no lm_head"
  ):
    formats.open(tmp_path / "x")
  rewrite(tmp_path / "x", lambda t: {**t, "lm_head.weight": t[TABLE]})
  formats.open(tmp_path / "x").verify()


@pytest.mark.parametrize(
  "name, said", [("rope_scaling", "type 'linear'"), ("rope_params", "linear")]
)
def test_a_scaled_rotation_is_refused_in_either_spelling(tmp_path, name, said):
  shutil.copytree(golden.DIR / "pg2_tiny_hf", tmp_path / "x")
  (tmp_path / "x/config.json").unlink()
  shutil.copy(REPORTS / f"hf_config_settings/{name}.json", tmp_path / "x/config.json")
  with pytest.raises(errors.UserError, match=said):
    formats.open(tmp_path / "x")


def test_meta_travels_in_config_json(tmp_path):
  cfg = toy.config()
  formats.save(tmp_path / "x", toys.reader(toy.flat_params(cfg)), cfg, {}, meta={"step": 7})
  assert formats.open(tmp_path / "x").meta == {"step": 7}
  assert json.loads((tmp_path / "x/config.json").read_text())[hf.META] == {"step": 7}
