import pytest

from paligemma_jax.metrics import molecules

pytest.importorskip("rdkit")


@pytest.mark.parametrize(
  "prediction, truth, full, exact, valid",
  [
    ("CCO", "CCO", 1, 1, 1),
    ("OCC", "CCO", 1, 0, 1),  # ethanol, written from the other end
    ("c1ccccc1", "C1=CC=CC=C1", 1, 0, 1),  # benzene
    ("CC", "CCO", 0, 0, 1),
    ("C[C@H](N)O", "C[C@@H](N)O", 0, 0, 1),  # mirror images differ
    ("CC(", "CC(", 1, 1, 0),  # nothing that rdkit reads, but the same string
    ("C(", "CCO", 0, 0, 0),
    ("", "CCO", 0, 0, 0),
  ],
)
def test_molecules(prediction, truth, full, exact, valid):
  got = molecules.molecules([{"prediction": prediction, "suffix": truth}])
  assert got == {"full_match": full, "exact_match": exact, "valid": valid}
