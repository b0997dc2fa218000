"""The mask codec against the reference's numbers, and its file against damaged ones."""

import json
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.models import vqvae
from tests import golden


def golden_tensor(name, shape, scale, salt):
  """The rule of the golden README: splitmix64 seeded by the crc32 of the name."""
  n = int(np.prod(shape))
  with np.errstate(over="ignore"):
    seed = np.uint64(zlib.crc32(name.encode()) + (salt << 32))
    z = seed + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
  u = (z >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
  return ((2 * u - 1) * np.float32(scale)).reshape(shape)


@pytest.fixture(scope="module")
def rule():
  return json.loads((golden.DIR / "vqvae_params.json").read_text())


@pytest.fixture(scope="module")
def params(rule):
  return {
    name: golden_tensor(name, shape, rule["scales"][name], rule["salt"])
    for name, shape in rule["shapes"].items()
  }


@pytest.fixture(scope="module")
def io():
  return golden.io("vqvae")


def small_params(seed=0):
  rng = np.random.default_rng(seed)
  shapes = vqvae.param_shapes(hidden=2, embedding=8)
  return {k: rng.normal(size=s).astype(np.float32) * 0.3 for k, s in shapes.items()}


def test_rule_for_the_weights_gives_the_recorded_checksums(rule, params):
  for name, (total, first, last) in rule["checks"].items():
    x = params[name].ravel()
    assert (x.astype(np.float64).sum(), x[0], x[-1]) == pytest.approx((total, first, last))


def test_names_and_shapes_are_the_published_ones(rule):
  assert vqvae.param_shapes() == {k: tuple(s) for k, s in rule["shapes"].items()}


def test_features_agree_with_the_reference(params, io):
  got = vqvae.features(params, jnp.asarray(io["masks"][:1]))
  np.testing.assert_allclose(got, io["enc_features"], atol=1e-4)


def test_codes_are_exactly_the_references(params, io):
  np.testing.assert_array_equal(
    vqvae.encode(params, jnp.asarray(io["masks"])), io["codes_of_masks"]
  )


def test_decoded_masks_agree_with_the_reference(params, io):
  np.testing.assert_allclose(
    vqvae.decode(params, jnp.asarray(io["codes"])), io["decoded"], atol=1e-4
  )


def test_crop_of_the_reference_becomes_the_seg_tokens_of_its_suffix(params, io):
  codes = vqvae.encode(params, jnp.asarray(io["m2s_crop64"]).reshape(-1, 64, 64))
  text = io["m2s_suffix"].item() if io["m2s_suffix"].ndim == 0 else io["m2s_suffix"][0]
  assert "".join(f"<seg{c:03d}>" for c in np.asarray(codes)[0]) in str(text)


def test_file_is_read_whole_and_buffers_of_the_training_code_are_ignored(tmp_path):
  params = small_params()
  buffers = {"_vq_vae._ema_cluster_size": np.ones(128), "_vq_vae._ema_w": np.ones((128, 8))}
  np.savez(tmp_path / "codec.npz", **params, **buffers)
  got = vqvae.load(tmp_path / "codec.npz")
  assert set(got) == set(params)
  assert all(np.array_equal(got[k], params[k]) for k in params)


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda p: p.pop("decoder.4.bias"), "1 tensors are missing, the first is decoder.4.bias"),
    (
      lambda p: p.update({"encoder.2.bias": np.zeros(3)}),
      r"encoder.2.bias has shape \[3\], wanted \[4\]",
    ),
    (lambda p: p.update({"encoder.0.bias": np.full(2, np.nan)}), "encoder.0.bias holds values"),
    (lambda p: p.clear(), "no mask codec"),
    (lambda p: p.update({vqvae.CODEBOOK: np.zeros(3)}), "wanted two axes"),
  ],
)
def test_a_damaged_file_is_an_error_that_names_the_tensor(tmp_path, change, words):
  params = small_params()
  change(params)
  np.savez(tmp_path / "codec.npz", **params)
  with pytest.raises(errors.UserError, match=words):
    vqvae.load(tmp_path / "codec.npz")


def test_a_missing_or_truncated_file_is_an_error_that_names_it(tmp_path):
  with pytest.raises(errors.UserError, match="absent.npz: no such file"):
    vqvae.load(tmp_path / "absent.npz")
  np.savez(tmp_path / "whole.npz", **small_params())
  (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:3000])
  with pytest.raises(errors.UserError, match="half.npz: no readable npz"):
    vqvae.load(tmp_path / "half.npz")


def test_widths_are_read_from_the_shapes():
  params = small_params()
  codes = vqvae.encode(params, jnp.zeros((3, 64, 64)))
  assert codes.shape == (3, 16)
  assert vqvae.decode(params, codes).shape == (3, 64, 64)


@pytest.mark.parity
def test_decoder_agrees_with_torch_layers():
  torch = pytest.importorskip("torch")
  # Torch computes in 64 bits. In between values reach 209, of which float32 rounds each to 1.2e-5: how
  # far results near 0 are off depends on the processor, ours by 3.9e-5 and torch's own float32 by 3.3e-5
  # at most where the processor has AVX-512. Five roundings are let through.
  params = {k: torch.from_numpy(v).double() for k, v in small_params(1).items()}
  F = torch.nn.functional
  codes = np.random.default_rng(0).integers(0, 128, (2, 16))
  conv = lambda x, n, **k: F.conv2d(x, params[f"{n}.weight"], params[f"{n}.bias"], **k)  # noqa: E731
  x = params[vqvae.CODEBOOK][codes].reshape(2, 4, 4, -1).permute(0, 3, 1, 2)
  x = conv(x, "decoder.0").relu()
  for b in ("decoder.2", "decoder.3"):
    h = conv(conv(x, f"{b}.net.0", padding=1).relu(), f"{b}.net.2", padding=1).relu()
    x = x + conv(h, f"{b}.net.4")
  for i in (4, 6, 8, 10):
    w, b = params[f"decoder.{i}.weight"], params[f"decoder.{i}.bias"]
    x = F.conv_transpose2d(x, w, b, stride=2, padding=1).relu()
  want = conv(x, "decoder.12")[:, 0]
  got = vqvae.decode(small_params(1), jnp.asarray(codes))
  np.testing.assert_allclose(got, want.numpy(), rtol=2e-5, atol=5 * 2**-24 * 209)
