"""The arithmetic of a step against hand counts, against the traced program and the compiler."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval

from paligemma_jax import sharding
from paligemma_jax.models import attention, flops, paligemma, tree, variants
from paligemma_jax.structs import Batch
from paligemma_jax.train import adapters as lora
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.train import recipes, step
from paligemma_jax.transfers import common
from tests import toy

B, T = 2, 8
POLICIES = ("none", "nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable")


def batch(config: variants.ModelConfig) -> Batch:
  """Shapes of B examples with T + 1 text tokens."""
  of = lambda dtype, *shape: jax.ShapeDtypeStruct((B, *shape), dtype)
  res = config.img.res
  image, text = of(jnp.uint8, res, res, 3), of(jnp.int32, T + 1)
  return Batch(image, of(bool, 1), text, text, of(bool, T + 1), of(jnp.float32, T + 1), of(bool))


def params(config: variants.ModelConfig) -> dict:
  return {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in tree.param_shapes(config).items()
  }


def product_flops(jaxpr) -> int:
  """2 per multiply-add of all products of a traced program, a scan as often as it turns."""
  total = 0
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "dot_general":
      (contracted, _), _ = eqn.params["dimension_numbers"]
      left, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
      total += 2 * math.prod(out) * math.prod(left[i] for i in contracted)
    times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
    inners = jax.extend.core.jaxprs_in_params(eqn.params)
    if eqn.primitive.name == "cond":  # of `lax.platform_dependent`: what has no form of its own
      inners = list(inners)[-1:]
    for inner in inners:
      total += times * product_flops(inner)
  return total


def traced_step(
  config: variants.ModelConfig, rules, flat=None, **model
) -> tuple[int, tuple[str, ...]]:
  """(FLOPs of the products of a training step, the names that train); `flat`: the parameters."""
  flat = flat or params(config)
  made = optimizers.make(flat, 10, lr=0.1, schedules=rules)
  nested = sharding.unflatten(flat)
  state = jax.eval_shape(lambda p: step.init_state(p, made, 0), nested)
  fn = step.make_train_step(paligemma.PaliGemma(config, **model), made)
  traced = jax.make_jaxpr(fn)(state, batch(config)).jaxpr
  used, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
  return product_flops(used), made.trainable


def forward(config: variants.ModelConfig):
  model = paligemma.PaliGemma(config, remat="none")

  def fn(params, b):
    return model.apply({"params": params}, b.image, b.text[:, :-1], b.mask_ar[:, :-1])[0]

  return fn, sharding.unflatten(params(config)), batch(config)


def test_a_layer_by_hand():
  c = variants.DecoderConfig(4, 1, 10, 2, 1, 3, vocab_size=50)  # D 4, F 10, N 2, K 1, H 3
  by_name = {p.name.split("/", 3)[-1]: p.flops for p in flops.decoder_products(c, rows=5)}
  assert by_name["q_einsum/w"] == by_name["kv_einsum/w"] == 2 * 5 * 4 * 6  # 5 x 4 times 4 x 6
  assert by_name["scores"] == by_name["values"] == 2 * 2 * 5 * 3 * 5  # heads, queries, H, keys
  assert by_name["gating_einsum"] == 2 * 5 * 4 * 20
  assert by_name["linear"] == 2 * 5 * 10 * 4
  assert flops.logits(c, 5).flops == 2 * 5 * 4 * 50


def test_the_last_layer_computes_only_what_is_asked_for():
  c = variants.DecoderConfig(4, 3, 10, 2, 1, 3, vocab_size=50)
  one = sum(p.flops for p in flops.decoder_products(dataclasses.replace(c, depth=1), rows=5))
  keys_and_values = 2 * 5 * 4 * 6
  for asked in (0, 1, 5):
    total = sum(p.flops for p in flops.decoder_products(c, rows=5, asked=asked))
    assert total == 2 * one + keys_and_values + (one - keys_and_values) * asked // 5


def test_the_published_model_needs_what_is_known():
  c = variants.preset("paligemma-3b", res=224)
  weights = sum(p.weights for p in flops.forward(c, text_len=128))
  total = sum(math.prod(shape) for shape in tree.param_shapes(c).values())
  assert weights == pytest.approx(total, rel=1e-3)  # all but norms, biases and positions
  made = flops.train_step(c, batch_size=1, text_len=128)
  assert made.model == pytest.approx(5.53e12, rel=0.01)
  assert made.backward == pytest.approx(2 * made.forward, rel=1e-3)  # pixels need no gradient


@pytest.mark.parametrize("family", ["paligemma", "paligemma2"])
def test_forward_is_the_traced_program(family):
  fn, *args = forward(toy.config(family))
  want = product_flops(jax.make_jaxpr(fn)(*args).jaxpr)
  assert B * sum(p.flops for p in flops.forward(toy.config(family), T)) == want


def test_forward_is_what_the_compiler_counts():
  # Wide enough for products to outweigh all else; a single layer, as a scan counts but once.
  img = variants.ImageConfig(256, 1, 512, 4, 14, 56)
  config = variants.ModelConfig(img, variants.DecoderConfig(256, 1, 1024, 4, 1, 64, 2048))
  fn, *args = forward(config)
  counted = jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]
  want = B * sum(p.flops for p in flops.forward(config, T))
  assert counted == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize("remat", POLICIES)
@pytest.mark.parametrize("family", ["paligemma", "paligemma2"])
def test_a_step_is_the_traced_program_with_all_it_computes_twice(family, remat):
  config = toy.config(family)
  want, trained = traced_step(config, [(".*", {})], remat=remat)
  made = flops.train_step(config, batch_size=B, text_len=T, trained=trained, remat=remat)
  assert made.hardware == want
  assert made.model == flops.train_step(config, batch_size=B, text_len=T, remat="none").model


@pytest.mark.parametrize(
  "trains", ["llm/layers/attn/.*", "img/head/.*", "img/.*", "llm/layers/mlp/.*"]
)
@pytest.mark.parametrize("remat", POLICIES)
def test_what_is_frozen_costs_no_gradient(trains, remat):
  config = toy.config()
  want, trained = traced_step(config, [(trains, {}), (".*", None)], remat=remat)
  made = flops.train_step(config, batch_size=B, text_len=T, trained=trained, remat=remat)
  assert made.hardware == want


def test_the_image_tower_has_a_policy_of_its_own():
  config = toy.config()
  want, _ = traced_step(config, [(".*", {})], remat="none", remat_img="nothing_saveable")
  options = dict(batch_size=B, text_len=T, remat="none", remat_img="nothing_saveable")
  assert flops.train_step(config, **options).hardware == want


def test_attention_in_blocks_computes_its_scores_once_more(monkeypatch):
  config = toy.config()
  plain = flops.train_step(config, batch_size=B, text_len=T, remat="none")
  monkeypatch.setattr(attention, "LARGEST", 0)
  monkeypatch.setattr(attention, "BLOCK", 4)
  blocks = flops.train_step(config, batch_size=B, text_len=T, remat="none")
  scores = [p.flops for p in flops.forward(config, T) if p.name.endswith("scores")]
  assert blocks.hardware - plain.hardware == B * sum(scores)


def test_decoding_reads_every_weight_and_attends_to_the_whole_cache():
  config = toy.config()
  each = flops.decode_products(config, context=20)
  names = {p.name for p in each if p.has_weight}
  assert names == {n for n in tree.param_shapes(config) if n.startswith("llm/") and "norm" not in n}
  options = dict(batch_size=3, text_len=12)
  total = flops.decode(config, new_tokens=5, **options)  # the prompt gave the first
  context = config.img.num_tokens + 12 + 5
  assert total == 3 * 4 * sum(p.flops for p in flops.decode_products(config, context))
  assert flops.prefill(config, **options) == 3 * sum(
    p.flops for p in flops.forward(config, 12, supervised=1)
  )


def test_several_images_and_sequences_share_the_weights():
  config = toy.config()
  one, two = (sum(p.weights for p in flops.forward(config, T, n)) for n in (1, 2))
  assert one == two
  one, four = (flops.decode_products(config, 20, n) for n in (1, 4))
  assert sum(p.weights for p in one) == sum(p.weights for p in four)
  assert 4 * sum(p.activations for p in one) == sum(p.activations for p in four)


@pytest.mark.parametrize("remat, again", [("none", 0), ("nothing_saveable", 1)])
def test_the_kernel_computes_its_scores_in_both_of_its_backward_passes(remat, again):
  config = variants.preset("paligemma-3b", res=448)
  products = flops.forward(config, T)
  made = flops.passes(config, products, remat=remat, kernel=True)
  pairs = [(p, n) for p, n in zip(products, made, strict=True) if p.rows > T]  # not the last layer
  repeats = {p.name.rpartition("/")[-1]: n.recompute for p, n in pairs}
  assert (repeats["scores"], repeats["values"]) == (2 + again, 1 + again)
  small = variants.preset("paligemma-3b", res=224)
  products = flops.forward(small, T)
  assert flops.passes(small, products, kernel=True) == flops.passes(small, products)


@pytest.mark.parametrize(
  "targets, few, remat",
  [
    ("decoder", "", "nothing_saveable"),
    ("decoder", "", "none"),
    ("all-linear", "nf4-dq", "dots_with_no_batch_dims_saveable"),
    *(
      pytest.param(targets, few, remat, marks=pytest.mark.slow)
      for targets in ("all-linear", "vision")
      for few in ("", "int8:decoder")
      for remat in POLICIES
    ),
  ],
)
def test_adapters_are_the_traced_program_with_all_it_computes_twice(targets, few, remat):
  config = toy.config()
  options = common.base().train.lora.to_dict() | {"targets": targets, "rank": 4}
  adapters = lora.layout(options, config).adapters(config)
  quant = tree.parse_quant(few, config) if few else {}
  leaves = tree.formed(config, tree.Form(quant, adapters))
  of = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(x.dtype or "float32"))
  flat = {name: of(leaf) for name, leaf in leaves.items()}
  rules = [(recipes.ADAPTERS, {}), (".*", None)]
  want, trained = traced_step(config, rules, flat, remat=remat)
  products = flops.adapted(flops.forward(config, T), adapters)
  counts = flops.passes(config, products, trained, remat, few_bits=quant)
  assert B * sum(p.flops * sum(n) for p, n in zip(products, counts, strict=True)) == want


def test_an_adapter_adds_two_small_products_and_a_frozen_weight_has_no_gradient():
  config = variants.preset("paligemma-3b")
  name = "llm/layers/mlp/gating_einsum"
  products = flops.adapted(flops.forward(config, 128), {name: tree.Adapter(8)})
  trained = [f"{name}.lora/{part}" for part in "ab"]
  counts = flops.passes(config, products, trained, "nothing_saveable")
  of = {p.name: (p, n) for p, n in zip(products, counts, strict=True) if p.rows == 384}
  a, b = of[trained[0]][0], of[trained[1]][0]
  assert a.flops == 2 * 17 * 2 * 384 * 2048 * 8  # all layers but the last, gate and up
  assert b.flops == 2 * 17 * 2 * 384 * 8 * 16_384
  assert of[name][1].backward == 1 and of[trained[0]][1].backward == of[trained[1]][1].backward == 2
  tower = [n for p, n in zip(products, counts, strict=True) if p.name.startswith("img/")]
  assert {n.backward for n in tower} == {0}
