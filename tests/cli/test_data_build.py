"""`data build`: what is listed, said and refused."""

import pytest

from paligemma_jax.datasets import samples, tasks


def test_the_tasks_are_listed(run):
  lines = run("data", "build").splitlines()
  assert [line.split()[0] for line in lines[1:]] == [*tasks.TASKS]
  assert any(line.startswith("vqav2") and "vqa" in line for line in lines)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_help_says_where_the_files_come_from_and_how_they_must_lie(run, task):
  said = run("data", "build", task, "--help")
  about = tasks.module(task).TASK
  assert f"Files: {about.source}" in said and about.source.startswith("http")
  assert f"Licence: {about.licence}" in said and about.licence
  assert about.layout.strip().splitlines()[0] in said
  for data in about.datasets:
    assert f"{data.name}:{data.version}" in said
    assert all(split in said for split in data.sizes)


def test_build_prints_what_it_made_and_then_that_it_is_there(run, tmp_path, capsys):
  samples.write("vqav2", tmp_path / "raw")
  argv = "data", "build", "vqav2", "--raw-dir", tmp_path / "raw", "--data-dir", tmp_path / "out"
  assert run(*argv) == f"{tmp_path}/out/vqa/3.0.0: train 24, validation 24, test 21, test-dev 21\n"
  assert "is there already" in run(*argv)


@pytest.mark.parametrize(
  "argv, words",
  [
    (["vqa2"], 'task "vqa2" is unknown; did you mean "vqav2"?'),
    (["vqav2/all"], 'vqav2: no "all"'),
    (["vqav2"], "--raw-dir DIR is needed"),
    (["vqav2", "--raw-dir", "."], "--data-dir DIR is needed"),
    (
      ["vqav2", "--raw-dir", "no", "--data-dir", "out"],
      "_train2014_annotations.json: no such file",
    ),
    (
      ["vqav2", "--raw-dir", ".", "--data-dir", "o", "--splits", "trian"],
      'vqa: no split "trian"; did',
    ),
  ],
)
def test_build_refuses_in_one_line_and_leaves_nothing(refuse, tmp_path, monkeypatch, argv, words):
  monkeypatch.chdir(tmp_path)
  assert words in refuse("data", "build", *argv)
  assert not list(tmp_path.iterdir())


def test_counts_that_differ_are_refused_when_strict(refuse, tmp_path):
  samples.write("vqav2", tmp_path / "raw")
  argv = "data", "build", "vqav2", "--raw-dir", tmp_path / "raw", "--data-dir", tmp_path / "out"
  said = refuse(*argv, "--strict", "--splits", "train")
  assert "train has 24 records, 443757 are published" in said
  assert not (tmp_path / "out").exists()
