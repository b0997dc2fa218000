"""What a user says of a checkpoint: names, values, and that it stays with what is written."""

import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import adapt, formats
from paligemma_jax.models import variants
from tests.checkpoint import toys


def test_assignments_are_read_by_their_name():
  texts = ["final_logits_softcap=30", "sliding_window=512", "resize=bicubic", "res=448"]
  texts += ["query_pre_attn_norm=rsqrt_emb_per_head", "final_logits_softcap=8.5"]
  assert adapt.parse(texts) == {
    "final_logits_softcap": 8.5,  # the last one counts
    "sliding_window": 512,
    "resize": "bicubic",
    "res": 448,
    "query_pre_attn_norm": "rsqrt_emb_per_head",
  }


@pytest.mark.parametrize(
  "text, said",
  [
    ("final_logits_softcap", '"final_logits_softcap" sets nothing; write KEY=VALUE'),
    (
      "final_logit_softcap=3",
      'is unknown; did you mean "final_logits_softcap"\\? Known: alpha, attn',
    ),
    ("final_logits_softcap=off", 'final_logits_softcap is "off", which is no float'),
    ("sliding_window=1.5", 'sliding_window is "1.5", which is no int'),
    ("res=", 'res is "", which is no int'),
  ],
)
def test_what_is_no_assignment_is_refused(text, said):
  with pytest.raises(errors.UserError, match=said):
    adapt.parse([text])


VALUES = [
  ({"final_logits_softcap": -1.0}, "final_logits_softcap is -1.0; give a number, 0 for off"),
  ({"attn_logits_softcap": float("inf")}, "attn_logits_softcap is inf"),
  ({"attn_logits_softcap": float("nan")}, "attn_logits_softcap is nan"),
  ({"sliding_window": -1}, "sliding_window is -1; give tokens, 0 for off"),
  ({"query_pre_attn_norm": "rsqrt_head"}, 'did you mean "rsqrt_head_dim"'),
  ({"res": 0}, "res is 0"),
  ({"res": 13}, "res is 13, less than one patch of 14 pixels"),
]


@pytest.mark.parametrize("change, said", VALUES)
def test_values_that_cannot_be_are_refused(change, said):
  with pytest.raises(errors.UserError, match=said):
    variants.preset("paligemma2-3b").replace(**change)


@pytest.mark.parametrize(
  "name, value",
  [("final_logits_softcap", "30"), ("sliding_window", 0.5), ("res", True), ("resize", None)],
)
def test_values_of_another_type_are_refused(name, value):
  with pytest.raises(errors.UserError, match=f"{name} is {value!r}, which is no "):
    adapt.settings({name: value})
  model, processor = adapt.settings({"final_logits_softcap": 30, "alpha": "white"})
  assert (model, processor) == ({"final_logits_softcap": 30.0}, {"alpha": "white"})


SETTINGS = dict(
  final_logits_softcap=30.0,
  attn_logits_softcap=0.0,
  sliding_window=5,
  query_pre_attn_norm="rsqrt_emb_per_head",
)


@pytest.mark.parametrize("to", formats.FORMATS)
def test_settings_travel_in_every_format(tmp_path, to):
  cfg, flat = toys.write(tmp_path / "a.npz", "paligemma2")
  source = adapt.changed(formats.open(tmp_path / "a.npz"), SETTINGS)
  dst = tmp_path / ("b.npz" if to == "npz" else "b")
  formats.convert(source, dst, to=to)
  found = formats.open(dst)
  assert found.config == cfg.replace(**SETTINGS)
  toys.assert_same(found, flat)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_resolution_is_resampled_in_the_stored_dtype(tmp_path, dtype):
  _, flat = toys.write(tmp_path / "a.npz", dtype=dtype)
  source = adapt.changed(formats.open(tmp_path / "a.npz"), {"res": 56})
  formats.convert(source, tmp_path / "b")
  found = formats.open(tmp_path / "b")
  wanted = adapt.resample_posemb(flat[adapt.POSEMB].astype("float32"), 4).astype(dtype)
  assert found.config.img.res == 56
  toys.assert_same(found, flat | {adapt.POSEMB: wanted})
