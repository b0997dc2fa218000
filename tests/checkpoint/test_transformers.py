"""The folders we write, opened by the transformers that is installed."""

import json

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats, hf_config, names
from paligemma_jax.models import tree
from tests import toy
from tests.checkpoint import toys

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SETTINGS = {  # name -> settings of a Gemma 2 decoder
  "as fine-tuned": {},
  "as published": {"final_logits_softcap": 30.0, "sliding_window": 4096},
  "no caps": {"attn_logits_softcap": 0.0},
  "width / heads": {"query_pre_attn_norm": "rsqrt_emb_per_head"},
}


def load(folder, dtype):
  model, info = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
    folder, output_loading_info=True, torch_dtype=getattr(torch, dtype)
  )
  wrong = {k: list(v) for k, v in info.items() if v}
  assert not wrong, wrong
  return model


def spelled_here(model):
  """Canonical name -> tensor of the model in memory."""
  found = {names.canonical(k): v for k, v in model.state_dict().items()}
  found.pop(names.HEAD, None)
  return found


@pytest.mark.parametrize("dtype", toys.DTYPES)
@pytest.mark.parametrize("family", toys.FAMILIES)
def test_from_pretrained_finds_every_tensor_and_no_other(tmp_path, family, dtype):
  cfg, flat = toys.write(tmp_path / "x", family, dtype)
  found = spelled_here(load(tmp_path / "x", dtype))
  slots = list(names.slots(tree.param_shapes(cfg), cfg.llm.post_norms))
  assert sorted(found) == sorted(s.theirs for s in slots)
  for s in slots:
    x = flat[s.ours] if s.layer is None else flat[s.ours][s.layer]
    x = names.to_theirs(s, x if s.part is None else x[s.part])
    y = found[s.theirs].to(torch.float32).numpy()[: len(x)]
    np.testing.assert_array_equal(y, x.astype(np.float32), err_msg=s.theirs)


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_arrive(tmp_path, setting):
  cfg, _ = toys.write(tmp_path / "x", "paligemma2", **SETTINGS[setting])
  text = load(tmp_path / "x", "float32").config.text_config
  llm = cfg.llm
  assert (text.final_logit_softcapping or 0.0) == llm.final_logits_softcap
  assert (text.attn_logit_softcapping or 0.0) == llm.attn_logits_softcap
  assert text.query_pre_attn_scalar**-0.5 == pytest.approx(llm.query_scale)
  assert ("sliding_attention" in text.layer_types) == bool(llm.sliding_window)


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_what_transformers_saves_is_read_back(tmp_path, family):
  cfg, flat = toys.write(tmp_path / "x", family)
  load(tmp_path / "x", "float32").save_pretrained(tmp_path / "y")
  source = formats.open(tmp_path / "y")
  toys.assert_same(source, flat)
  assert source.config == cfg
  source.verify()


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_what_transformers_saves_of_a_model_never_loaded_is_read(tmp_path, family):
  toys.write(tmp_path / "x", family)
  config = transformers.AutoConfig.from_pretrained(tmp_path / "x")
  model = transformers.PaliGemmaForConditionalGeneration(config)
  model.save_pretrained(tmp_path / "y")
  source, found = formats.open(tmp_path / "y"), spelled_here(model)
  table = found[names.TABLE].detach().numpy()[:1500]
  np.testing.assert_array_equal(source.read("llm/embedder/input_embedding"), table)
  source.verify()


def test_bare_towers_that_transformers_saves(tmp_path):
  cfg, _ = toys.write(tmp_path / "x", "paligemma2")
  config = transformers.AutoConfig.from_pretrained(tmp_path / "x")
  config.vision_config.vision_use_head = True
  transformers.SiglipVisionModel(config.vision_config).save_pretrained(tmp_path / "img")
  transformers.Gemma2ForCausalLM(config.text_config).save_pretrained(tmp_path / "llm")
  img, llm = formats.open(tmp_path / "img"), formats.open(tmp_path / "llm")
  assert img.config is None and llm.config is None
  assert img.shapes == tree.shapes(tree.image(cfg.img, None))
  assert {n for n in llm.shapes} == set(tree.decoder(cfg.llm))


def configs(family):
  """What transformers itself writes of such a model, with every key and with the changed ones alone."""
  stored = hf_config.write(
    toy.config(family, final_logits_softcap=8.0 * (family[-1] == "2")), "float32", 1500
  )
  config = transformers.PaliGemmaConfig(
    **{k: v for k, v in stored.items() if k not in ("model_type", "architectures")}
  )
  return json.loads(config.to_json_string(use_diff=False)), json.loads(config.to_json_string())


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_every_key_that_transformers_writes_is_known(family):
  cfg = toy.config(family, final_logits_softcap=8.0 * (family[-1] == "2"))
  for stored in configs(family):
    assert hf_config.read(stored, "x").model == cfg


OTHER = {bool: lambda x: not x, int: lambda x: x + 1, float: lambda x: x * 2 + 0.5}
OTHER |= {str: lambda x: "silu", list: lambda x: x[::-1], dict: lambda x: x | {"rope_theta": 20.0}}
MORE = {  # keys that are read wherever they stand, though no config lists them
  "text_config": {
    "rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
    "rope_theta": 500.0,
    "partial_rotary_factor": 0.5,
  }
}


@pytest.mark.slow
@pytest.mark.parametrize("family", toys.FAMILIES)
def test_a_key_that_we_accept_unread_does_not_change_the_logits(family):
  """Every key of every part, given another value: refused, seen in our config, or without effect."""
  stored, _ = configs(family)
  ours = hf_config.read(stored, "x")
  torch.manual_seed(0)
  model = transformers.PaliGemmaForConditionalGeneration(
    transformers.PaliGemmaConfig(**stored)
  ).eval()
  with torch.no_grad():
    for p in model.parameters():
      p.normal_(0, 0.3)
  ids = torch.tensor([[1500] * 4 + [2, 40, 50, 60, 70]])
  inputs = dict(
    input_ids=ids, pixel_values=torch.rand(1, 3, 28, 28), token_type_ids=torch.zeros_like(ids)
  )

  def logits(config):
    other = transformers.PaliGemmaForConditionalGeneration(transformers.PaliGemmaConfig(**config))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
      return other.eval()(**inputs).logits

  wanted, accepted = logits(stored), []
  for part in (None, "text_config", "vision_config"):
    here = stored[part] if part else stored
    for key, value in (here | MORE.get(part, {})).items():
      if key in ("text_config", "vision_config", "model_type", "architectures", "dtype"):
        continue
      value = value if key in MORE.get(part, {}) else OTHER.get(type(value), lambda x: 3)(value)
      changed = {**stored, part: here | {key: value}} if part else here | {key: value}
      try:
        if hf_config.read(changed, "x") != ours:
          continue
      except errors.UserError:
        continue
      accepted.append(key)
      try:
        found = logits(changed)
      except Exception:  # nor does transformers take such a value
        continue
      torch.testing.assert_close(found, wanted, msg=f"{part}.{key} = {value!r}")
  assert len(accepted) > 20
