"""What all configs of transfers have in common: plain data, checked, told apart, small on demand."""

import collections
import json
import pathlib

import pytest

from paligemma_jax import errors
from paligemma_jax.train import settings
from paligemma_jax.transfers import common
from tests.transfers import references

FOLDER = pathlib.Path(common.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("common", "forkme"))
ONLY_EVALUATED = ("pope", "mix")


def get_config(name, arg=None):
  return references.module(name).get_config(arg)


def test_every_entry_has_its_config():
  wanted = {references.PARENTS.get(e["id"], e["id"]) for e in references.ENTRIES}
  assert wanted == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", [None, "final", "debug"])
def test_it_is_plain_data_with_known_keys_and_names(name, arg):
  c = settings.check(get_config(name, arg), train=name not in ONLY_EVALUATED or arg == "debug")
  assert json.loads(json.dumps(settings.plain(c)))["seed"] == 0
  for e in c.expect.values():
    for score in e.scores:
      assert score.split("/")[0] in c.evals
    assert 0 < e.value < 10 and e.source.startswith(("arXiv:", "big_vision"))


def test_the_document_names_them_all():
  text = (FOLDER.parent / "docs/transfers.md").read_text()
  assert not [name for name in NAMES if f"`{name}`" not in text and f"`{name}.py`" not in text]


def lines(name):
  return [line.strip() for line in (FOLDER / f"{name}.py").read_text().splitlines() if line.strip()]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_its_own(name):
  in_files = collections.Counter(line for other in NAMES for line in set(lines(other)))
  shared = [line for line in lines(name) if in_files[line] > 10]
  assert len(shared) < len(lines(name)) / 5, shared
  assert 20 <= len((FOLDER / f"{name}.py").read_text().splitlines()) <= 60


def test_debug_has_the_same_sizes_for_all():
  sizes = set()
  for name in NAMES:
    c = get_config(name, "debug")
    sizes.add((c.model.preset, c.model.init, c.input.text_len, c.train.batch_size, c.train.steps))
    sizes |= {(e.max_new_tokens, e.batch_size, e.sampler) for e in c.evals.values()}
    assert c.build.startswith("sample:")
    assert not any("[" in s.split for s in c.train.data.values())
  assert sizes == {("tiny", "", 128, 2, 2), (8, 2, "greedy")}


@pytest.mark.parametrize(
  "name, arg, words",
  [
    ("okvqa", "res=896", 'argument "res": "896" is unknown'),
    ("okvqa", "variant=pg2_3", '"pg2_3" is unknown; did you mean "pg2_3b"'),
    ("okvqa", "finale", '"finale" is unknown; did you mean "final"'),
    ("cococap", "crop=rq", '"rq" is unknown'),
  ],
)
def test_a_wrong_argument_is_named(name, arg, words):
  with pytest.raises(errors.UserError, match=words):
    get_config(name, arg)


def test_paligemma_2_has_its_own_checkpoint_and_rate():
  c = get_config("cococap", "res=448,variant=pg2_10b")
  assert (c.model.init, c.train.lr, c.train.weight_decay) == ("pt_10b_448.npz", 6e-7, 1e-6)


def test_a_crop_is_an_augmentation_of_training_only():
  c = get_config("cococap", "crop=ic")
  assert c.train.data.cococap.augment == ("inception_crop:50",)
  assert not any(e.data.augment for e in c.evals.values())
