"""`paligemma score`: given answers, the likeliest first."""

import json

import numpy as np
import pytest

import paligemma_jax as pg


@pytest.fixture
def answers(tmp_path):
  path = tmp_path / "answers.txt"
  path.write_text("yes\nno\n\na cat and a dog\n")
  return path


@pytest.fixture
def ask(ckpt, pictures):
  prompt = ("--prompt", "answer en what colour?")
  return ("score", "--ckpt", ckpt, "--image", pictures[0], *prompt, "--answers")


def test_table_and_json_say_the_same_as_python(run, ask, answers, ckpt, pictures, tmp_path):
  said = json.loads(run(*ask, answers, "--json"))
  model = pg.load(ckpt)
  batch = model.processor([pictures[0]], ["answer en what colour?"])
  want = pg.score(model, batch, ["yes", "no", "a cat and a dog"])
  order = np.argsort(-want.logprobs[0])
  assert [s["answer"] for s in said] == [want.answers[0][k] for k in order]
  np.testing.assert_allclose([s["logprob"] for s in said], want.logprobs[0][order], atol=1e-5)
  np.testing.assert_allclose([s["prob"] for s in said], want.probs[0][order], atol=1e-5)

  listed = tmp_path / "answers.json"
  listed.write_text(json.dumps(["no", "yes", "a cat and a dog"]))
  lines = run(*ask, listed).splitlines()
  assert lines[0].split() == ["share", "logprob", "answer"]
  assert [line.split(maxsplit=2)[2] for line in lines[1:]] == [s["answer"] for s in said]
  assert float(lines[1].split()[1]) == pytest.approx(said[0]["logprob"], abs=1e-3)


@pytest.mark.parametrize(
  "content, words",
  [
    ("\n \n", "holds no answers"),
    ("a\nb\na\n", 'holds "a" twice'),
    ('["a", 3]', "not of strings"),
    ('["a", ', "begins as a JSON list but is none"),
    (b"caf\xe9", "is not UTF-8 (byte 3)"),
    (None, "some.txt (No such file or directory); correct the path"),
  ],
)
def test_wrong_answers_are_told(refuse, ask, tmp_path, content, words):
  path = tmp_path / "some.txt"
  if content is not None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
  assert words in refuse(*ask, path)
