"""Live against peft: adapters that we write, opened by it, and those that it writes, read by us.

Compared are logits (1e-4, float32) with those of the base with merged weights, both by transformers.
"""

import warnings

import numpy as np
import pytest

from paligemma_jax.checkpoint import formats, lora, merge, peft
from tests.checkpoint import adapters, toys

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
theirs = pytest.importorskip("peft")

V = 1500
OURS = {
  "list": dict(wanted=lambda p: p.endswith(adapters.LIST)),
  "ranks": dict(
    wanted=lambda p: p.endswith(("v_proj", "fc2", "down_proj", "gate_proj")),
    size=lambda p: lora.Size(2 + len(p) % 3, 4 + len(p) % 2),
    rslora=True,
  ),
  "projector": dict(wanted=lambda p: p.endswith(("linear", "o_proj", "out_proj")), dora=True),
  "patches": dict(wanted=lambda p: p.endswith(("patch_embedding", "k_proj"))),
  "biases on B": dict(wanted=lambda p: p.endswith("fc1"), bias=True),
  "biases": dict(wanted=lambda p: p.endswith(("fc1", "up_proj")), replaced=r"fc1\.bias"),
  "all biases": dict(wanted=lambda p: p.endswith("linear"), replaced=r"\.bias"),
  "saved projector": dict(wanted=lambda p: p.endswith("1.self_attn.q_proj"), replaced="linear"),
  "saved norms": dict(wanted=lambda p: p.endswith("q_proj"), replaced=r"norm.*(weight|bias)$"),
}
THEIRS = {
  "list": dict(target_modules=list(adapters.LIST)),
  "linear": dict(target_modules="all-linear", use_dora=True, exclude_modules=["fc2"]),
  "one layer": dict(target_modules=["q_proj", "fc1"], layers_to_transform=1),
  "patterns": dict(
    target_modules=["q_proj", "fc1", "linear"],
    rank_pattern={"fc1": 3, r"language_model\.layers\.1.*": 5},
    alpha_pattern={r"vision_tower.*0\.self_attn.q_proj": 6.5, "q_proj": 2},
    use_rslora=True,
  ),
  "orthogonal": dict(target_modules=["down_proj"], init_lora_weights="orthogonal"),
  "patches": dict(target_modules=["patch_embedding", "o_proj"], use_dora=True),
  "biases on B": dict(target_modules=["fc2"], lora_bias=True),
  "biases": dict(target_modules=["fc2", "o_proj", "linear"], bias="lora_only"),
  "all biases": dict(target_modules=["up_proj"], bias="all"),
  "saved": dict(target_modules=["v_proj"], modules_to_save=["post_layernorm", "linear", "mlp.fc1"]),
}  # fmt: skip


def load(folder):
  return transformers.PaliGemmaForConditionalGeneration.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="eager"
  ).eval()


def logits(model) -> np.ndarray:
  """[1, T, V], float32, over a fixed prompt and picture."""
  ids = torch.tensor([[V] * 4 + [2, 40, 50, 60, 70]])
  rng = torch.Generator().manual_seed(0)
  with torch.no_grad():
    out = model(
      input_ids=ids,
      pixel_values=torch.rand(1, 3, 28, 28, generator=rng),
      token_type_ids=torch.zeros_like(ids),
    )
  return out.logits[..., :V].numpy()


def check(tmp_path, base, adapter, beside):
  """`beside` is the model of peft; the merged weights give the same logits, the base others."""
  merged = merge.merged(base, adapter)
  formats.convert(merged, tmp_path / "merged", progress=False)
  found, before = logits(beside), logits(load(base.path))
  np.testing.assert_allclose(logits(load(tmp_path / "merged")), found, atol=1e-4)
  assert np.abs(found - before).max() > 2e-3


@pytest.mark.parametrize("family", toys.FAMILIES)
@pytest.mark.parametrize("case", OURS)
def test_peft_finds_every_tensor_of_what_we_write(tmp_path, case, family):
  config, flat = toys.write(tmp_path / "base", family)
  adapters.write(tmp_path / "x", config, adapters.layout(config, **OURS[case]), flat)
  base = formats.open(tmp_path / "base")
  with warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)
    model = theirs.PeftModel.from_pretrained(load(tmp_path / "base"), str(tmp_path / "x")).eval()
    result = model.load_adapter(str(tmp_path / "x"), "default")
  assert not result.unexpected_keys
  assert not [key for key in result.missing_keys if ".default." in key]
  check(tmp_path, base, peft.open(tmp_path / "x", config), model)


@pytest.mark.parametrize("family", toys.FAMILIES)
@pytest.mark.parametrize("case", THEIRS)
def test_what_peft_writes_is_read(tmp_path, case, family):
  config, _ = toys.write(tmp_path / "base", family)
  base = formats.open(tmp_path / "base")
  torch.manual_seed(0)
  model = theirs.get_peft_model(
    load(tmp_path / "base"), theirs.LoraConfig(r=4, lora_alpha=6, **THEIRS[case])
  ).eval()
  trained = [p for p in model.parameters() if p.requires_grad]
  with torch.no_grad():
    for p in trained:
      p.add_(0.05 * torch.randn_like(p))
  model.save_pretrained(tmp_path / "x")
  adapter = peft.open(tmp_path / "x", config)
  assert adapter.trained == sum(p.numel() for p in trained)
  check(tmp_path, base, adapter, model)


def test_an_adapter_of_the_table_is_found_and_changes_its_rows(tmp_path):
  config, flat = toys.write(tmp_path / "base")
  layout = adapters.layout(config, lambda p: p.endswith("tokens"))
  own = adapters.write(tmp_path / "x", config, layout, flat)
  model = theirs.PeftModel.from_pretrained(load(tmp_path / "base"), str(tmp_path / "x")).eval()
  name = "llm/embedder/input_embedding"
  wanted = flat[name] + 8 / 4 * own[name + ".lora/a"] @ own[name + ".lora/b"]
  with torch.no_grad():
    found = model.get_base_model().get_input_embeddings()(torch.arange(V)).numpy()
  # transformers 5 multiplies with sqrt(D) in the module of the table
  np.testing.assert_allclose(found / config.llm.width**0.5, wanted, atol=1e-6)
