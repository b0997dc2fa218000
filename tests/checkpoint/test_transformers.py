"""The folders we write, opened by the transformers that is installed."""

import numpy as np
import pytest

from paligemma_jax.checkpoint import formats, names
from paligemma_jax.models import variants
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
  slots = list(names.slots(variants.param_shapes(cfg), cfg.llm.post_norms))
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
  assert img.shapes == variants.image_shapes(cfg.img, None)
  assert {n for n in llm.shapes} == set(variants.decoder_shapes(cfg.llm))
