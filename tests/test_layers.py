"""Who may import whom: the rooms, the third-party fences, and what stays light to import."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "paligemma_jax"

# Room -> rooms it may import. A new edge is a decision: write it down here.
MAY = {
  "structs": "",
  "errors": "",
  "cache": "",
  "storage": "errors",
  "exchange": "",
  "sharding": "errors",
  "models": "structs errors sharding",
  "processing": "structs errors",
  "metrics": "errors",
  "decode": "structs errors models",
  # The tokens of a folder say which rows of its table are more than padding.
  "checkpoint": "structs errors storage exchange models sharding processing.added_tokens",
  "data": "structs errors cache processing sharding models.vqvae",
  "datasets": "structs errors processing",
  "vlm": "structs errors exchange models processing sharding decode checkpoint",
  "evals": "structs errors storage exchange sharding processing models data decode metrics checkpoint vlm"
  " configs",
  "train": "structs errors cache storage exchange models sharding processing data datasets decode metrics"
  " checkpoint vlm evals configs transfers.common",  # whose base() names every key of a config
  "cli": "structs errors cache storage exchange models sharding processing data datasets decode metrics"
  " checkpoint vlm evals train bench configs",
  "bench": "structs errors cache models sharding processing data datasets decode metrics checkpoint"
  " vlm evals train configs transfers.common",  # whose lora() are the adapters that it measures
  "": "",  # __init__, __main__: the public names and the command line, see below
}
# Third-party package -> the only files that may name it.
FENCES = {
  "flax": ("models/", "train/", "vlm.py"),
  "grain": ("data/", "datasets/"),
  "tensorflow_datasets": ("data/", "datasets/"),
  "safetensors": ("checkpoint/hf.py", "checkpoint/names.py"),
  "orbax": ("checkpoint/orbax.py", "checkpoint/items.py"),
  "tensorflow": (),
  "torch": ("bench/peers.py",),
  "transformers": ("bench/peers.py",),
  "peft": ("bench/peers.py",),
  "wandb": ("train/wandb.py",),
}
# No JAX in any form.
PURE = ("structs.py", "errors.py", "cache.py", "storage.py", "processing/", "metrics/")


def imports(path: pathlib.Path):
  """(module, its parts below the package or None) of every import statement, nested ones too."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [a.name for a in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}: relative import"
      names = [f"{node.module}.{a.name}" for a in node.names]
    else:
      continue
    for name in names:
      ours = name.startswith("paligemma_jax.")
      yield name, name.split(".")[1:] if ours else None


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards_and_stay_inside_the_fences(path):
  place = path.relative_to(PACKAGE).as_posix()
  room = place.split("/")[0].removesuffix(".py")
  for name, ours in imports(path):
    if ours and not room.startswith("__"):
      allowed = {room, *MAY[room].split()}
      assert ours[0] in allowed or ".".join(ours[:2]) in allowed, f"{place} imports {name}"
    top = name.split(".")[0]
    if top in FENCES:
      assert place.startswith(FENCES[top] or "nowhere"), f"{place} imports {name}"
    if place.startswith(PURE):
      assert top not in ("jax", "optax"), f"{place} imports {name}"


def test_the_codec_is_the_only_model_that_data_knows_and_only_to_prepare():
  for path in sorted((PACKAGE / "data").glob("*.py")):
    knows = [name for name, ours in imports(path) if ours and ours[0] == "models"]
    assert not knows or path.name == "prepare.py", f"{path.name} imports {knows}"


def test_configs_and_transfers_are_imported_by_path_or_by_each_other():
  for folder in ("configs", "transfers"):
    for path in sorted((PACKAGE.parent / folder).glob("*.py")):
      for name, ours in imports(path):
        if ours:
          allowed = ("configs", "transfers", "errors", "cache")
          assert ours[0] in allowed, f"{folder}/{path.name} imports {name}"


def loaded_by(code: str) -> set[str]:
  """Names of the heavy packages that a fresh interpreter has loaded after `code`."""
  heavy = ("jax", "jaxlib", "tensorflow", "torch", "flax", "orbax", "grain", "transformers")
  code += f"\nimport sys; print('loaded:', *[m for m in {heavy} if m in sys.modules])"
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  return set(run.stdout.split("loaded:")[-1].split())


@pytest.mark.parametrize(
  "code",
  [
    "import paligemma_jax",
    "import paligemma_jax.metrics",
    "import paligemma_jax.processing.processor",
    "from paligemma_jax.metrics import boxes, masks, text",
    "from paligemma_jax.models import variants",
    "from paligemma_jax.train import table",
    "from paligemma_jax.cli import main; main.main(['--help'])",
    "from paligemma_jax.cli import main; main.main(['generate', '--help'])",
    "from paligemma_jax.cli import main; assert main.main(['generate', '--nonsense']) == 2",
    "from paligemma_jax.cli import main; assert main.main(['trian']) == 2",
  ],
)
def test_what_must_be_light_loads_no_array_library(code):
  assert loaded_by(code) == set()
