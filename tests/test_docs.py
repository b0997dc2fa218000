"""Every public thing says what it is, and the documents agree with the code."""

import ast
import pathlib
import re

import pytest

from paligemma_jax.cli import config
from paligemma_jax.processing import augment
from paligemma_jax.transfers import common

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = [
  p for d in ("paligemma_jax", "transfers", "configs") for p in sorted((ROOT / d).rglob("*.py"))
]
WITHOUT = {"get_config", "setup", "__call__"}  # their module or class says it


def public(node, inside=""):
  """(dotted name, node) of the public definitions of a module or class."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
      yield inside + child.name, child
      if isinstance(child, ast.ClassDef):
        yield from public(child, f"{inside}{child.name}.")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_name_has_a_docstring(path):
  tree = ast.parse(path.read_text())
  empty_init = path.name == "__init__.py" and not tree.body
  assert empty_init or ast.get_docstring(tree), "the module has no docstring"
  missing = [
    name
    for name, node in public(tree)
    if name.split(".")[-1] not in WITHOUT and not ast.get_docstring(node)
  ]
  assert not missing, f"no docstring: {', '.join(missing)}"


def test_no_file_grows_past_what_a_reader_takes_in():
  long = {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
  assert not long, f"over 400 lines: {long}; is there a second idea in it?"


def test_the_table_of_config_keys_is_complete():
  text = (ROOT / "docs/config.md").read_text()
  every = config.paths(common.base())
  every += [f"{k}`" for k in config.paths(common.evaluate(common.jsonl(""), "")) if "." not in k]
  missing = [key for key in every if f"`{key}" not in text]
  assert not missing, f"docs/config.md lacks {', '.join(missing)}"


def test_the_keys_of_sources_and_the_steps_of_augmentation_are_explained():
  text = (ROOT / "docs/data.md").read_text()
  keys = {key for make in common.SOURCES.values() for key in make("")} - {"kind"}
  assert not [key for key in keys if f"`{key}`" not in text]
  assert not [step for step in augment.AUGMENTS if f"| `{step}" not in text]
  assert not [kind for kind in common.SOURCES if f"`common.{kind}(" not in text]


def test_the_readme_begins_with_exactly_two_shell_commands():
  blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
  shell = [body.strip() for language, body in blocks if language in ("sh", "bash", "shell", "")]
  assert len(shell) == 2 and [language for language, _ in blocks[:2]] == ["sh", "sh"]
  assert "train --config transfers/forkme.py" in shell[0] and "pytest" in shell[1]
  assert all("\n" not in command for command in shell)


def test_every_fault_has_the_test_that_the_table_names():
  rows = (ROOT / "docs/training.md").read_text().partition("\n| fault |")[2].split("\n")[2:]
  assert len(rows) > 12
  for row in filter(None, rows):
    named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", row)
    assert named or row.endswith("| the same |"), row
    for path, name in named:
      assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path} has no {name}"


def test_links_between_documents_lead_somewhere():
  for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
    for target in re.findall(r"\]\(([\w./-]+\.md)\)", path.read_text()):
      assert (path.parent / target).is_file(), f"{path.name} links to {target}"
