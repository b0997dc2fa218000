"""`paligemma eval` of several configs: one table, a page of all and a page of each."""

import json

import pytest

from paligemma_jax.cli import eval as command
from paligemma_jax.cli import main

CONFIG = """
from paligemma_jax.transfers import common

def get_config(arg=None):
  c = common.base(0, text_len=32)
  c.evals.val = common.evaluate(common.jsonl({data!r}), "exact_match", max_new_tokens=2, batch_size=8)
  source = {{"scores": ("val/exact_match",), "std": None, "source": "a paper"}}
  c.expect = {{"val/exact_match": {{"value": {published}, **source}}}} if arg != "none" else {{}}
  return c
"""


@pytest.fixture
def configs(tmp_path, pictures):
  """Paths of two configs on the same eight questions; the second's published score is out of reach."""
  data = tmp_path / "data.jsonl"
  line = {"image": pictures[0], "prefix": "answer en what colour?", "suffix": "red"}
  data.write_text("".join(json.dumps({**line, "id": f"q{i}"}) + "\n" for i in range(8)))
  paths = []
  for name, published in (("first", 0.0), ("second", 2.0)):
    path = tmp_path / f"{name}.py"
    path.write_text(CONFIG.format(data=str(data), published=published))
    paths.append(str(path))
  return paths


def test_several_configs_make_one_table_and_a_page_of_each(configs, ckpt, tmp_path, capsys):
  first, second = configs
  args = ["eval", "--config", first, "--config", second, "--ckpt", ckpt, "--expect"]
  assert main.main([*args, "--workdir", str(tmp_path / "out")]) == 1
  said = capsys.readouterr()
  head, *rows = said.out.splitlines()
  assert head.split()[:3] == ["transfer", "score", "value"]
  assert [row.split()[:2] for row in rows] == [[n, "val/exact_match"] for n in ("first", "second")]
  assert "pass" in rows[0] and "FAIL" in rows[1]
  assert "1 of 2 published scores not reached: second val/exact_match" in said.err

  lines = json.loads((tmp_path / "out/results.json").read_text())
  assert [(x["transfer"], x["config"], x["ckpt"]) for x in lines] == [
    ("first", first, ckpt),
    ("second", second, ckpt),
  ]
  assert "./second/results.html" in (tmp_path / "out/results.html").read_text()
  for name in ("first", "second"):
    page = (tmp_path / f"out/{name}/results.html").read_text()
    assert page.count("<img") == 8 and "picture not found" not in page
    assert len((tmp_path / f"out/{name}/predictions/val.jsonl").read_text().splitlines()) == 8
    assert "val" in json.loads((tmp_path / f"out/{name}/metrics.json").read_text())


def test_one_config_has_all_in_the_workdir_itself(configs, ckpt, tmp_path, run):
  out = tmp_path / "out"
  run("eval", "--config", configs[0], "--ckpt", ckpt, "--workdir", out)
  names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
  assert names == {"metrics.json", "results.json", "results.html", "predictions/val.jsonl"}


def test_a_mistake_in_the_last_config_is_told_before_anything_is_evaluated(
  configs, ckpt, tmp_path, refuse
):
  both = ("--config", configs[0], "--config", configs[1])
  out = ("--workdir", tmp_path / "out")
  assert "3 checkpoints for 2 configs" in refuse("eval", *both, *("--ckpt", ckpt) * 3, *out)
  assert "first is given twice" in refuse("eval", *both[:2] * 2, "--ckpt", ckpt, *out)
  gone = refuse("eval", *both, "--ckpt", ckpt, "--ckpt", tmp_path / "gone", *out)
  assert "gone" in gone
  none = f"{configs[1]}:none"
  message = refuse("eval", *both[:2], "--config", none, "--ckpt", ckpt, "--expect", *out)
  assert f"{none} has no published scores" in message
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "specs, names",
  [
    (["transfers/vqav2.py:res=448,final"], ["vqav2"]),
    (["transfers/vqav2.py:res=448", "a.pyx/gqa.py"], ["vqav2", "gqa"]),
    (["x/vqav2.py:res=224,final", "x/vqav2.py"], ["vqav2_res=224_final", "vqav2"]),
    (["a/b.py", "/c/b.py"], ["a_b", "c_b"]),
  ],
)
def test_a_transfer_is_called_by_what_tells_it_from_the_others(specs, names):
  assert command._names(specs) == names
