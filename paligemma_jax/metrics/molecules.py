"""Scores of molecular structure: SMILES that mean the same molecule."""

from paligemma_jax import errors
from paligemma_jax.metrics import scores, text


@scores.of_terms(alone=("full_match", "exact_match"))
def molecules(rows: list[dict]) -> scores.Terms:
  """Share of predicted SMILES that are the true molecule.

  Returns:
    "full_match": the canonical SMILES of both are the same; "exact_match": the strings are; "valid":
    share of predictions that are a molecule at all. A truth that rdkit cannot read is compared as a
    string.

  Raises:
    errors.UserError: rdkit is not installed.

  Source: MolScribe (arXiv:2205.14311), as PaliGemma 2 (arXiv:2412.03555) counts it.
  """
  terms = {"full_match": [], "exact_match": [], "valid": []}
  for row in rows:
    found, wanted = row["prediction"], text.answers(row)
    mine = canonical(found)
    same = mine is not None and mine in [canonical(w) for w in wanted]
    values = (same or found in wanted, found in wanted, mine is not None)
    for column, value in zip(terms.values(), values):
      column.append(value if wanted else None)
  return {name: scores.array(column) for name, column in terms.items()}


def canonical(smiles: str) -> str | None:
  """The canonical SMILES of a molecule, stereochemistry included; None: rdkit cannot read it."""
  try:
    from rdkit import Chem, RDLogger
  except ImportError:
    raise errors.UserError(
      "molecules needs rdkit, which is not installed; pip install paligemma_jax[metrics]"
    ) from None
  RDLogger.DisableLog("rdApp.*")
  molecule = Chem.MolFromSmiles(smiles.strip()) if smiles.strip() else None
  return None if molecule is None else Chem.MolToSmiles(molecule)
