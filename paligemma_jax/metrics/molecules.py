"""Scores of molecular structure: SMILES that mean the same molecule."""

import re

from paligemma_jax import errors
from paligemma_jax.metrics import scores, targets

_NAMES = ("full_match", "full_match/no_cis_trans", "full_match/no_chirality", "exact_match")


@scores.of_terms(alone=_NAMES)
def molecules(rows: list[dict]) -> scores.Terms:
  """Share of predicted SMILES that are the true molecule.

  Returns:
    "full_match": the canonical SMILES of both are the same; "full_match/no_cis_trans" and
    "full_match/no_chirality": they are when the double bonds' / and \\, or the chirality, are left
    out; "exact_match": the strings are; "valid": share of predictions that are a molecule at all.
    What rdkit cannot read is compared as a string.

  Raises:
    errors.UserError: rdkit is not installed.

  Source: MolScribe (arXiv:2205.14311), thomas0809/MolScribe, molscribe/evaluate.py (canon_smiles_em,
  canon_smiles, graph), as PaliGemma 2 (arXiv:2412.03555) counts it.
  """
  terms = {name: [] for name in (*_NAMES, "valid")}
  for row in rows:
    found, wanted = row["prediction"], targets.answers(row)
    mine, theirs = _forms(found), [_forms(w) for w in wanted]
    same = (mine[i] in {forms[i] for forms in theirs} for i in range(len(mine)))
    values = (*same, found in wanted, canonical(found) is not None)
    for column, value in zip(terms.values(), values):
      column.append(value if wanted else None)
  return {name: scores.array(column) for name, column in terms.items()}


def _forms(smiles: str) -> list[str]:
  """Canonical, without cis and trans, without chirality; the string itself where none is."""
  flat = re.sub(r"[/\\]", "", smiles)
  kinds = (smiles, True), (flat, True), (smiles, False)
  return [canonical(s, chirality) or s.strip() for s, chirality in kinds]


def canonical(smiles: str, chirality: bool = True) -> str | None:
  """The canonical SMILES of a molecule; None: rdkit cannot read it.

  Rests like [R1] become [1*], and what else in brackets is no atom, as [OMe], becomes *.

  Args:
    smiles: of one molecule.
    chirality: False leaves out what rdkit calls isomeric: stereochemistry and isotopes.

  Raises:
    errors.UserError: rdkit is not installed.
  """
  try:
    from rdkit import Chem, RDLogger
  except ImportError:
    raise errors.UserError(
      "molecules needs rdkit, which is not installed; pip install paligemma_jax[metrics]"
    ) from None
  RDLogger.DisableLog("rdApp.*")

  def atom(match: re.Match) -> str:
    if rest := re.fullmatch(r"\[R(\d+)]", match[0]):
      return f"[{rest[1]}*]"
    return match[0] if Chem.AtomFromSmiles(match[0]) else "*"

  smiles = re.sub(r"\[[^]]+]", atom, smiles.strip())
  molecule = Chem.MolFromSmiles(smiles) if smiles else None
  return None if molecule is None else Chem.MolToSmiles(molecule, isomericSmiles=chirality)
