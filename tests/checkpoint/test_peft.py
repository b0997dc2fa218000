import json
import math
import re

import numpy as np
import pytest
import safetensors.numpy

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats, hf, lazy, lora, merge, peft, peft_save, source
from paligemma_jax.models import variants
from tests import golden_adapters, toy
from tests.checkpoint import adapters, toys

ADAPTERS = golden_adapters.ADAPTERS
SPELLINGS = golden_adapters.SPELLINGS


def tensors(folder) -> dict[str, np.ndarray]:
  """What a safetensors file holds, read by the library."""
  return safetensors.numpy.load_file(folder / peft.FILE)


def settings(folder) -> dict:
  return json.loads((folder / "adapter_config.json").read_text())


def place(name, folder=None):
  return golden_adapters.folder(ADAPTERS[name], folder or ADAPTERS[name]["folders"][0])


OF_TABLE = [n for n in ADAPTERS if any("lora_embedding" in key for key in tensors(place(n)))]
MERGEABLE = [n for n in ADAPTERS if n not in OF_TABLE]


def base(name) -> source.Source:
  return hf.open(str(golden_adapters.base(ADAPTERS[name])))


def opened(name, folder=None) -> peft.Adapter:
  return peft.open(place(name, folder), base(name).config)


def module(name: str) -> str:
  """Name of a tensor of an adapter -> the module's path as transformers 5 has it."""
  path = re.sub(r"\.(lora_|base_layer|weight$|bias$).*", "", name)
  path = re.sub(r"^(base_model\.model\.)?(model\.)?", "", path)
  path = path.replace("language_model.model.", "language_model.")
  return path.replace("vision_model.", "")


@pytest.mark.parametrize("name, folder", SPELLINGS)
def test_every_spelling_gives_the_same_arrays(name, folder):
  ours, first = opened(name, folder), opened(name)
  assert ours.lora == first.lora
  found, wanted = ours.arrays(), first.arrays()
  assert found.keys() == wanted.keys()
  for key, x in wanted.items():
    np.testing.assert_array_equal(found[key], x, err_msg=key)
    assert found[key].dtype == np.float32


@pytest.mark.parametrize("name", ADAPTERS)
def test_as_many_values_as_peft_counts(name):
  ours = opened(name)
  assert ours.trained == ADAPTERS[name]["trainable"]
  assert ours.dtype.name == ADAPTERS[name]["dtype"]
  peft.check_changes_something(ours)


@pytest.mark.parametrize(
  "variant, published, decoder",
  [
    ("paligemma-3b", 11_298_816, 9_805_824),
    ("paligemma2-3b", 11_876_352, 10_383_360),
    ("paligemma2-10b", 28_502_016, 27_009_024),
    ("paligemma2-28b", 58_583_040, 57_090_048),
  ],
)
def test_the_published_recipe_has_as_many_values_as_peft_prints(variant, published, decoder):
  config = variants.preset(variant)
  ends = lambda path: path.endswith(adapters.LIST)
  size = lambda path: lora.Size(8, 8)
  whole = adapters.layout(config, ends, size)
  part = adapters.layout(config, lambda p: ends(p) and p.startswith("language_model"), size)
  assert (whole.trained(config), part.trained(config)) == (published, decoder)


@pytest.mark.parametrize("name", ADAPTERS)
def test_factors_stand_where_the_weights_of_their_axes_do(name):
  found, config = opened(name).arrays(), base(name).config.llm
  heads = {"v_proj": config.num_kv_heads, "q_proj": config.num_heads}
  names = {
    "v_proj": "llm/layers/attn/kv_einsum/w.lora/",
    "q_proj": "llm/layers/attn/q_einsum/w.lora/",
  }
  for key, x in tensors(place(name)).items():
    match = re.search(r"language_model\.layers\.(\d)\.self_attn\.([qv]_proj)\.lora_([AB])", key)
    if match:
      layer, part, kind = int(match[1]), match[2], match[3].lower()
      ours = found[names[part] + kind][(layer, 1) if part == "v_proj" else layer]
      wanted = x.T if kind == "a" else x.T.reshape(-1, heads[part], config.head_dim)
      rank = wanted.shape[-1 if kind == "a" else 0]
      np.testing.assert_array_equal(ours[..., :rank] if kind == "a" else ours[:rank], wanted)


def test_ranks_that_differ_are_filled_up_with_zeros_and_scaled_each():
  sizes, config = {"0": lora.Size(4, 6.0), "1": lora.Size(6, 12.0)}, toy.config()
  layout = adapters.layout(
    config,
    lambda p: p.startswith("language") and p.endswith("q_proj"),
    lambda p: sizes[p.split(".")[2]],
    rslora=True,
  )
  (name, form), scale = *layout.adapters(config).items(), *layout.scales(config).values()
  assert (name, form.rank) == ("llm/layers/attn/q_einsum/w", 6)
  np.testing.assert_allclose(scale, [6 / 2, 12 / math.sqrt(6)], 1e-7)


def test_a_module_that_is_not_adapted_is_zero(tmp_path):
  config = toy.config()
  layout = adapters.layout(config, lambda p: p.endswith("1.self_attn.v_proj"))
  adapters.write(tmp_path / "x", config, layout, toy.flat_params(config))
  ours = peft.open(tmp_path / "x", config).arrays()
  kv = "llm/layers/attn/kv_einsum/w.lora/"
  np.testing.assert_array_equal(ours[kv + "scale"], [[0, 0], [0, 2]])
  for kind in "ab":
    assert ours[kv + kind][1, 1].any()
    assert not ours[kv + kind][0].any() and not ours[kv + kind][1, 0].any()


@pytest.mark.parametrize("name", OF_TABLE)
def test_padded_rows_of_the_table_are_dropped(name):
  ours, theirs = opened(name), {k.split(".")[-1]: x for k, x in tensors(place(name)).items()}
  rows, found = base(name).config.llm.vocab_size, ours.arrays()
  a, b = theirs["lora_embedding_A"], theirs["lora_embedding_B"]
  assert ours.rows == a.shape[1] > rows
  np.testing.assert_array_equal(found["llm/embedder/input_embedding.lora/a"], a.T[:rows])
  np.testing.assert_array_equal(found["llm/embedder/input_embedding.lora/b"], b.T)


@pytest.mark.parametrize("name", golden_adapters.QLORA)
def test_a_fresh_adapter_opens_but_changes_nothing(name):
  entry = golden_adapters.QLORA[name]
  weights = golden_adapters.QUANT[entry["base"].split("/")[-1]]["base"]
  config = hf.open(str(golden_adapters.DIR / weights)).config
  ours = peft.open(golden_adapters.DIR / entry["folder"], config)
  with pytest.raises(errors.UserError, match="changes nothing"):
    peft.check_changes_something(ours)


def merged_by_hand(weights, name) -> dict[str, np.ndarray]:
  """Every tensor that an adapter changes, by the formulas of the papers; names as in memory."""
  c, modules, found = settings(place(name)), {}, {}
  for key, x in tensors(place(name)).items():
    modules.setdefault(module(key), {})[key.split(module(key) + ".")[1]] = x.astype(np.float64)
  for path, parts in modules.items():
    found |= {f"{path}.{k.split('.')[-1]}": x for k, x in parts.items() if "lora_" not in k}
    if "lora_A.weight" in parts:
      found[f"{path}.weight"] = adapted_by_hand(weights[f"{path}.weight"], c, path, parts)
  return found


def adapted_by_hand(w, c, path, parts) -> np.ndarray:
  a, b = parts["lora_A.weight"], parts["lora_B.weight"]
  alpha, r = (
    next(iter(adapters.by_pattern(c[key], "model." + path) - {None}), c[default])
    for key, default in (("alpha_pattern", "lora_alpha"), ("rank_pattern", "r"))
  )
  assert len(a) == r
  w = w + alpha / (math.sqrt(r) if c["use_rslora"] else r) * b @ a
  if c["use_dora"]:
    w *= (parts["lora_magnitude_vector"] / np.linalg.norm(w, axis=1))[:, None]
  return w


def weights_of(folder) -> dict[str, np.ndarray]:
  """float64 tensors of a folder by the names of transformers 5."""
  found = {}
  for path in folder.glob("*.safetensors"):
    for key, x in safetensors.numpy.load_file(path).items():
      found[f"{module(key)}.{key.split('.')[-1]}"] = x.astype(np.float64)
  return found


@pytest.mark.parametrize("name", MERGEABLE)
def test_merged_weights_are_those_of_the_formula(tmp_path, name):
  whole = merge.merged(base(name), opened(name), np.float32)
  formats.convert(whole, tmp_path / "x", dtype="float32", progress=False)
  before = weights_of(golden_adapters.base(ADAPTERS[name]))
  changed, found = merged_by_hand(before, name), weights_of(tmp_path / "x")
  for key, x in (before | changed).items():
    rows = slice(0, base(name).config.llm.vocab_size if "embed_tokens" in key else None)
    np.testing.assert_allclose(found[key][rows], x[rows], atol=2e-6 if key in changed else 0)
  assert all(np.abs(x - before[key]).max() > 1e-3 for key, x in changed.items())


@pytest.mark.parametrize("name", MERGEABLE)
def test_any_box_of_merged_weights_is_that_of_the_whole(name):
  whole = merge.merged(base(name), opened(name))
  for key, places in whole.arrays.items():
    if isinstance(places, lazy.Patched):
      x = np.asarray(places)
      box = tuple(slice(n // 3, n - n // 4) for n in x.shape)
      np.testing.assert_allclose(places[box], x[box], atol=1e-6, err_msg=key)
      np.testing.assert_array_equal(places[-1], x[-1], err_msg=key)


@pytest.mark.parametrize("name", ADAPTERS)
def test_only_what_is_replaced_changes_beside_an_adapter(name):
  src, ours = base(name), opened(name)
  beside = merge.replaced(src, ours)
  changed = {n for n in src.arrays if not np.array_equal(src.read(n), beside.read(n))}
  assert changed == set(ours.replaced)


@pytest.mark.parametrize("name", OF_TABLE)
def test_an_adapter_of_the_table_is_never_merged(name):
  with pytest.raises(errors.UserError, match="embed_tokens.*beside its base"):
    merge.merged(base(name), opened(name))


def with_biases_on_b(tmp_path, end):
  """(toy model, adapter of its modules that end so, arrays of both)."""
  config, flat = toy.config(), toy.flat_params(toy.config())
  formats.save(tmp_path / "base", toys.reader(flat), config, {})
  layout = adapters.layout(config, lambda p: p.endswith(end), bias=True)
  own = adapters.write(tmp_path / "x", config, layout, flat)
  return formats.open(tmp_path / "base"), peft.open(tmp_path / "x", config), flat | own


def test_a_bias_on_b_is_merged_into_the_bias_of_the_model(tmp_path):
  src, ours, arrays = with_biases_on_b(tmp_path, "fc1")
  name = "img/Transformer/encoderblock/MlpBlock_0/Dense_0/"
  wanted = arrays[name + "bias"] + 8 / 4 * arrays[name + "kernel.lora/bias"]
  np.testing.assert_allclose(merge.merged(src, ours).read(name + "bias"), wanted, 1e-6)


def test_a_bias_on_b_cannot_be_merged_where_the_model_has_none(tmp_path):
  src, ours, _ = with_biases_on_b(tmp_path, "up_proj")
  with pytest.raises(errors.UserError, match="up_proj has a bias on lora_B, but no bias"):
    merge.merged(src, ours)


@pytest.mark.parametrize("name, folder", SPELLINGS)
def test_what_is_read_is_written_bit_for_bit(tmp_path, name, folder):
  src, ours = base(name), opened(name, folder)
  beside = merge.replaced(src, ours)
  found = ours.arrays(None) | {key: beside.read(key) for key in ours.replaced}
  peft_save.save(tmp_path / "x", ours.lora, src.config, found, rows=ours.rows)
  again = peft.open(tmp_path / "x", src.config)
  assert again.lora == ours.lora and again.dtype == ours.dtype
  end = lambda key: key.split(module(key).split(".")[-1])[-1]
  theirs, own = (
    {module(k) + end(k): x for k, x in tensors(f).items()}
    for f in (place(name, folder), tmp_path / "x")
  )
  table = "language_model.embed_tokens"
  theirs.pop(table + ".base_layer.weight", None)
  assert own.keys() == theirs.keys()
  for key, x in theirs.items():
    rows = src.config.llm.vocab_size if key == table + ".lora_embedding_A" else None
    assert own[key].dtype == x.dtype and own[key].shape == x.shape
    np.testing.assert_array_equal(
      own[key][:, :rows] if rows else own[key], x[:, :rows] if rows else x
    )


# Adapters of the toy model -> their layout, the spelling that they get.
LAYOUTS = {
  "list": (dict(wanted=lambda p: p.endswith(adapters.LIST)), 0),
  "decoder": (dict(wanted=lambda p: p.startswith("language_model.layers")), 0),
  "one layer": (dict(wanted=lambda p: ".layers.1." in p and "mlp" in p), 0),
  "ranks": (
    dict(
      wanted=lambda p: p.endswith(("q_proj", "fc1", "down_proj")),
      size=lambda p: lora.Size(2 + len(p) % 3, 4.5 if "down" in p else 4 + len(p) % 2),
      rslora=True,
    ),
    0,
  ),
  "projector": (dict(wanted=lambda p: p.endswith(("linear", "o_proj")), dora=True), 1),
  "patches and table": (dict(wanted=lambda p: p.endswith(("tokens", "patch_embedding"))), 0),
  "biases on B": (dict(wanted=lambda p: p.endswith("fc1"), bias=True, dropout=0.1), 0),
  "biases": (dict(wanted=lambda p: p.endswith(("fc1", "up_proj")), replaced=r"fc1\.bias"), 2),
  "all biases": (dict(wanted=lambda p: p.endswith("q_proj"), replaced=r"\.bias"), 2),
  "norms": (
    dict(wanted=lambda p: p.endswith("q_proj"), replaced=r"model\.norm|1\.input_layernorm"), 1
  ),
  "norms of the tower": (
    dict(wanted=lambda p: p.endswith("q_proj"), replaced=r"layer_norm1|post_layernorm\."), 2
  ),
}  # fmt: skip


@pytest.mark.parametrize("family", toys.FAMILIES)
@pytest.mark.parametrize("case", LAYOUTS)
def test_what_is_written_is_read_back(tmp_path, family, case):
  options, spelling = LAYOUTS[case]
  config = toy.config(family)
  layout = adapters.layout(config, **options)
  wanted = adapters.write(tmp_path / "x", config, layout, toy.flat_params(config), base="b")
  ours = peft.open(tmp_path / "x", config)
  assert ours.lora == layout and ours.base == "b"
  found = ours.arrays()
  for key, x in wanted.items():
    if ".lora/" in key and not key.endswith("scale"):
      np.testing.assert_array_equal(found[key], x, err_msg=key)
  for key, places in ours.replaced.items():
    for at, x in places.items():
      np.testing.assert_array_equal(np.asarray(x), wanted[key][at], err_msg=key)
  paths = {adapters.spellings(path)[spelling] for path in layout.modules}
  names = [key for key in tensors(tmp_path / "x") if ".lora_" in key]
  assert {key.removeprefix("base_model.model.").split(".lora_")[0] for key in names} == paths


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_config_means_the_same_modules_and_sizes_in_every_spelling(tmp_path, case):
  config = toy.config()
  layout = adapters.layout(config, **LAYOUTS[case][0])
  adapters.write(tmp_path / "x", config, layout, toy.flat_params(config))
  c = settings(tmp_path / "x")
  for path in lora.modules(config):
    for spelled in adapters.spellings(path):
      assert adapters.is_target(c, spelled) == (path in layout.modules), spelled
      if path in layout.modules:
        ranks = adapters.by_pattern(c["rank_pattern"], spelled)
        alphas = adapters.by_pattern(c["alpha_pattern"], spelled)
        assert {r or c["r"] for r in ranks} == {layout.modules[path].rank}
        assert {a or c["lora_alpha"] for a in alphas} == {layout.modules[path].alpha}
  assert len(c) == 24 + layout.bias  # those of peft 0.11, which every later one reads


def test_the_published_list_is_written_as_a_list(tmp_path):
  config = toy.config()
  layout = adapters.layout(config, **LAYOUTS["list"][0])
  adapters.write(tmp_path / "x", config, layout, toy.flat_params(config))
  assert settings(tmp_path / "x")["target_modules"] == sorted(adapters.LIST)


@pytest.mark.parametrize(
  "replaced, words",
  [
    (r"layers\.0\.mlp\.fc1\.bias", "biases.* 1 of 19"),
    (r"layers\.0\.mlp\.fc2\.weight", "fc2 .*without its bias"),
    (r"embed_tokens", "embed_tokens .*output matrix"),
    (r"language_model.*0.*q_proj\.weight", "q_proj .*and adapted"),
  ],
)
def test_what_peft_cannot_say_is_refused(tmp_path, replaced, words):
  config = toy.config()
  layout = adapters.layout(config, lambda p: p.endswith("q_proj"), replaced=replaced)
  with pytest.raises(errors.UserError, match=words):
    adapters.write(tmp_path / "x", config, layout, toy.flat_params(config))
  assert not any(tmp_path.iterdir())


def test_a_save_that_is_stopped_leaves_nothing(tmp_path):
  def stop():
    raise KeyboardInterrupt

  config = toy.config()
  layout = adapters.layout(config, **LAYOUTS["list"][0])
  with pytest.raises(KeyboardInterrupt):
    adapters.write(tmp_path / "x", config, layout, toy.flat_params(config), before_commit=stop)
  assert not any(tmp_path.iterdir())


def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path):
  config, folder = toy.config(), edited(tmp_path)
  ours = adapters.layout(config, **LAYOUTS["list"][0])
  found = adapters.arrays(config, ours, toy.flat_params(config))
  found["llm/layers/mlp/linear.lora/b"][1, 0, 0] = np.inf
  with pytest.raises(errors.UserError, match="infinite"):
    peft_save.save(tmp_path / "y", ours, config, found)
  theirs = tensors(folder)
  theirs[next(iter(theirs))][0, 0] = np.nan
  safetensors.numpy.save_file(theirs, folder / peft.FILE)
  with pytest.raises(errors.UserError, match=r"lora/[ab] \[0.*not a number"):
    peft.open(folder, toy.config()).arrays()


def edited(tmp_path, config=(), change=None, wanted=lambda p: p.endswith(adapters.LIST)):
  """An adapter of the toy model with other settings, and with tensors that `change` has changed."""
  folder, own = tmp_path / "adapter", toy.config()
  layout = adapters.layout(own, wanted, lambda p: lora.Size(8, 8))
  adapters.write(folder, own, layout, toy.flat_params(own), base="b")
  (folder / "adapter_config.json").write_text(json.dumps(settings(folder) | dict(config)))
  if change:
    safetensors.numpy.save_file(change(tensors(folder)), folder / peft.FILE)
  return folder


ROOT = "base_model.model."
LAYER = ROOT + "language_model.model.layers.0.self_attn."
X = np.ones((2, 3), np.float32)


def without(part):
  return lambda found: {k: x for k, x in found.items() if part not in k}


def having(**more):
  return lambda found: found | {ROOT + k.replace("__", "."): x for k, x in more.items()}


def renamed(old, new):
  return lambda found: {k.replace(old, new): x for k, x in found.items()}


REFUSED = [
  (dict(peft_type="LOHA"), None, "LOHA"),
  (dict(fan_in_fan_out=True), None, "fan_in_fan_out"),
  *[(dict(init_lora_weights=x), None, f"{x}.*path_initial") for x in ("pissa", "pissa_niter_4")],
  *[(dict(init_lora_weights=x), None, x) for x in ("olora", "corda", "loftq", "lora_ga")],
  (dict(layer_replication=[[0, 2]]), None, "layer_replication"),
  (dict(trainable_token_indices=[3]), None, "trainable_token_indices"),
  (dict(target_parameters=["x"]), None, "target_parameters"),
  (dict(alora_invocation_tokens=[3]), None, "alora_invocation_tokens"),
  (dict(arrow_config={"top_k": 3}), None, "arrow_config"),
  (dict(use_qalora=True), None, "use_qalora"),
  (dict(use_bdlora={"nblocks": 1}), None, "use_bdlora"),
  (dict(kasa_config={"beta": 1}), None, "kasa_config"),
  (dict(velora_config={"x": 1}), None, "velora_config"),
  (dict(monteclora_config={"x": 1}), None, "monteclora_config"),
  (dict(ensure_weight_tying=True), None, "ensure_weight_tying"),
  (dict(use_dora=True, lora_bias=True), None, "exclude each other"),
  (dict(use_tomorrow=True), None, "use_tomorrow.*not known"),
  (dict(r="8"), None, "damaged.*r is '8'"),
  (dict(alpha_pattern={"(": 3}), None, "damaged"),
  (dict(bias="some"), None, "damaged.*bias"),
  (dict(use_dora=True), None, "missing.*lora_magnitude_vector"),
  (dict(lora_bias=True), None, "missing.*lora_B.bias"),
  (dict(target_modules=["embed_tokens", "q_proj"], use_dora=True), None, "embed_tokens.lora_emb"),
  (dict(bias="lora_only"), None, "missing.*Older releases of peft lose biases"),
  (dict(modules_to_save=["multi_modal_projector"]), None, "2 missing.*projector"),
  ({}, without("layers.0.self_attn.q_proj.lora_B"), "2 missing.*q_proj.lora_B"),
  ({}, without("language_model.model.layers.1"), "14 missing: .*layers.1"),
  ({}, lambda found: {}, "no tensors"),
  ({}, having(custom_text_proj__lora_A__weight=X), "1 unexpected.*custom_text_proj"),
  ({}, having(language_model__model__layers__7__mlp__up_proj__lora_A__weight=X), r"layers\.7"),
  ({}, renamed("mlp.up_proj", "mlp.dense"), "missing.*unexpected.*dense"),
  ({}, having(language_model__model__embed_tokens__weight=X), "embed_tokens.weight is a table of its own"),
  ({}, renamed("layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj.default"), "unexpected"),
  ({}, having(lm_head__weight=X), "lm_head.weight is a table"),
  ({}, having(language_model__lm_head__lora_A__weight=X), "lora_A.weight adapts the output matrix"),
  ({}, having(model__language_model__layers__0__mlp__up_proj__lora_A__weight=X), "two spellings"),
  (
    {},
    lambda found: found | {LAYER + "q_proj.lora_A.weight": np.ones((8, 50), np.float32)},
    r"1 mis-shaped: \S+q_proj.lora_A.weight is \[8, 50\] instead of \[8, 48\]",
  ),
  ({}, lambda found: found | {LAYER + "q_proj.lora_A.weight": X.astype(np.int32)}, "dtype.*I32"),
]  # fmt: skip


@pytest.mark.parametrize("config, change, words", REFUSED)
def test_what_would_not_be_what_was_trained_is_refused_by_name(tmp_path, config, change, words):
  folder = edited(tmp_path, config, change)
  with pytest.raises(errors.UserError, match=words) as e:
    peft.open(folder, toy.config())
  assert "\n" not in str(e.value) and str(folder) in str(e.value)


@pytest.mark.parametrize(
  "config", [dict(init_lora_weights=x) for x in (False, "gaussian", "eva", "orthogonal")]
  + [dict(lora_dropout=0.1), dict(peft_version="9.9"), dict(exclude_modules=["fc2"])],
)  # fmt: skip
def test_what_does_not_change_the_numbers_is_read(tmp_path, config):
  assert len(peft.open(edited(tmp_path, config), toy.config()).parts) == 2 * (7 + 3)


@pytest.mark.parametrize(
  "change",
  [
    renamed("base_model.model.", ""),
    renamed("base_model.model.", "base_model.model.model."),
    renamed("base_model.model.", "module.base_model.model."),
  ],
)
def test_spellings_of_which_there_is_no_golden_folder(tmp_path, change):
  folder = edited(tmp_path)
  wanted = peft.open(folder, toy.config()).arrays()
  safetensors.numpy.save_file(change(tensors(folder)), folder / peft.FILE)
  found = peft.open(folder, toy.config()).arrays()
  for key, x in wanted.items():
    np.testing.assert_array_equal(found[key], x, err_msg=key)


def test_an_adapter_of_another_model_is_told_by_its_sizes(tmp_path):
  with pytest.raises(errors.UserError, match=r"\d+ mis-shaped: .* instead of .* its base was b"):
    peft.open(edited(tmp_path), toy.config("paligemma2"))


@pytest.mark.parametrize(
  "files, words",
  [
    ((), "holds no adapter_config.json"),
    (("adapter_config.json",), "has no adapter_model.safetensors"),
    (("adapter_config.json", "adapter_model.bin"), "pickle.*safe_serialization"),
  ],
)
def test_folders_that_hold_no_adapter_that_is_read(tmp_path, files, words):
  for file in files:
    (tmp_path / file).write_text("{}")
  with pytest.raises(errors.UserError, match=words):
    peft.open(tmp_path, toy.config())


def test_a_copy_of_the_table_must_be_of_its_shape(tmp_path):
  key = ROOT + "language_model.model.embed_tokens.base_layer.weight"
  folder = edited(tmp_path, {}, lambda found: found | {key: X}, lambda p: p == lora.TABLE)
  with pytest.raises(
    errors.UserError, match=r"base_layer.weight is \[2, 3\] instead of \[1536, 48\]"
  ):
    peft.open(folder, toy.config())
