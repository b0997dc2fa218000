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
  assert (got["full_match"], got["exact_match"], got["valid"]) == (full, exact, valid)


@pytest.mark.parametrize(
  "prediction, truth, full, no_cis_trans, no_chirality",
  [
    ("C[C@H](N)O", "C[C@@H](N)O", 0, 0, 1),
    ("F/C=C/F", "F/C=C\\F", 0, 1, 1),  # without chirality rdkit writes neither
    ("F/C=C/F", "FC=CF", 0, 1, 1),
    ("[R1]CO", "OC[R1]", 1, 1, 1),
    ("[R1]CO", "OC[R2]", 0, 0, 1),  # numbers of rests are isotopes to rdkit
    ("[OMe]C", "C[OEt]", 1, 1, 1),  # what is no atom is any
  ],
)
def test_what_may_differ(prediction, truth, full, no_cis_trans, no_chirality):
  got = molecules.molecules([{"prediction": prediction, "suffix": truth}])
  assert got["full_match"] == full
  assert got["full_match/no_cis_trans"] == no_cis_trans
  assert got["full_match/no_chirality"] == no_chirality
