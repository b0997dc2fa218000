"""The table of parameters: axes, matrices, weights in few bits and adapters."""

import math

import pytest

from paligemma_jax import errors
from paligemma_jax.models import tree, variants
from tests import toy

BIG = variants.preset("paligemma-3b")
Q, KV, OUT = (tree.LAYERS + f"attn/{n}/w" for n in ("q_einsum", "kv_einsum", "attn_vec_einsum"))
FC2 = tree.BLOCKS + "MlpBlock_0/Dense_1/kernel"


@pytest.mark.parametrize("name", variants.PRESETS)
def test_every_axis_of_every_parameter_has_its_place(name):
  for leaf in tree.plain(variants.preset(name)).values():
    assert len(leaf.axes) == len(leaf.shape)
    axes = [*range(leaf.stack), *leaf.summed, *leaf.outer]
    assert sorted(axes) == list(range(len(leaf.shape)))


@pytest.mark.parametrize("name", variants.PRESETS)
def test_a_name_says_how_many_axes_repeat(name):
  for parameter, leaf in tree.plain(variants.preset(name)).items():
    assert tree.stack_of(parameter) == leaf.stack


def test_matrices_are_those_of_hugging_face():
  leaves = tree.plain(BIG)
  assert leaves[Q].matrix == (8 * 256, 2048) and leaves[Q].stacked == (18,)
  assert leaves[KV].matrix == (256, 2048) and leaves[KV].stacked == (18, 2)
  assert leaves[OUT].matrix == (2048, 8 * 256)
  assert leaves[FC2].matrix == (1152, 4304)
  assert leaves["img/head/kernel"].matrix == (2048, 1152)


def test_what_all_quantises_is_what_transformers_does():
  chosen = tree.parse_quant("nf4", BIG)
  assert set(chosen) == set(tree.matrices(BIG)) and len(chosen) == 12
  assert not any(name.startswith("img/") for name in tree.parse_quant("int8:decoder", BIG))
  assert list(tree.parse_quant("int4-32:.*linear", BIG).values()) == [tree.Quant("int4", 32)]


@pytest.mark.parametrize(
  "text, message",
  [
    ("int2", '"int2" is unknown; write KIND or KIND:PARTS, KIND of int8, int4'),
    ("nf4:decodr", '"decodr" is no named set .* matches no whole name; did you mean "decoder"'),
    ("nf4:(", "no regular expression"),
    ("nf4:llm/embedder/.*", "matches no whole name"),  # the table stays
  ],
)
def test_a_form_that_cannot_be_is_one_line(text, message):
  with pytest.raises(errors.UserError, match=message):
    tree.parse_quant(text, BIG)


# Computed in the published systems' terms: 4 bits, a float32 for 64 or 8 bits for 64 and a
# float32 for 256 of those.
@pytest.mark.parametrize(
  "text, bits", [("nf4", 4.5), ("nf4-dq", 4.127), ("int4", 4.25), ("int8", 8.01)]
)
def test_bits_of_a_weight(text, bits):
  quant = tree.parse_quant(text, BIG)
  sizes = {"uint8": 1, "int8": 1, "bfloat16": 2, "float32": 4}
  parts = tree.formed(BIG, tree.Form({Q: quant[Q]}))
  found = sum(
    math.prod(x.shape) * sizes[x.dtype] for n, x in parts.items() if n.startswith(Q + "/")
  )
  assert 8 * found / math.prod(tree.plain(BIG)[Q].shape) == pytest.approx(bits, abs=0.02)


def test_blocks_cross_rows_where_the_width_does_not_divide():
  parts = tree.quantised(tree.plain(BIG)[FC2], tree.Quant("nf4"))
  assert parts["nf4"].shape == (27, 1152, 2152)
  assert parts["absmax"].shape == (27, 1, 1152 * 4304 // 64)


def test_an_adapter_has_the_axes_of_its_weight():
  parts = tree.adapted(tree.plain(BIG)[KV], tree.Adapter(8, dora=True, bias=True))
  assert {k: x.shape for k, x in parts.items()} == {
    "a": (18, 2, 2048, 8),
    "b": (18, 2, 8, 1, 256),
    "scale": (18, 2),
    "m": (18, 2, 1, 256),
    "bias": (18, 2, 1, 256),
  }
  assert parts["b"].axes == ("layers", None, None, "kv_heads", "head_dim")


@pytest.mark.parametrize("quant", ["int8", "int4", "int4-32", "nf4", "nf4-dq"])
def test_the_form_of_a_tree_is_read_off_its_names(quant):
  config = toy.config("paligemma2")
  form = tree.Form(tree.parse_quant(quant, config), {Q: tree.Adapter(3), KV: tree.Adapter(4, True)})
  assert tree.form_of(tree.shapes(tree.formed(config, form))) == form
  assert tree.form_of(tree.param_shapes(config)) == tree.Form()
