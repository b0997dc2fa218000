import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_jax.metrics import music

PAGE = "4c\t4e\n4d\t."


def _score(*pairs):
  return music.music([{"prediction": p, "suffix": s} for p, s in pairs])


@pytest.mark.parametrize(
  "prediction, cer, ser, ler",
  [
    (PAGE, 0, 0, 0),
    ("4c\t4f\n4d\t.", 1 / 10, 1 / 7, 1 / 2),  # one of 10 characters, 7 symbols, 2 lines
    ("4c\t4e", 5 / 10, 4 / 7, 1 / 2),
    ("", 1, 1, 1),
  ],
)
def test_rates(prediction, cer, ser, ler):
  assert _score((prediction, PAGE)) == pytest.approx({"cer": cer, "ser": ser, "ler": ler})


def test_the_notes_of_a_chord_are_symbols_and_the_spaces_between_them_are_not():
  assert _score(("4c 4e 4g\t4d", "4c 4f 4g\t4d"))["ser"] == pytest.approx(1 / 5)


def test_long_pages_weigh_more():
  assert _score(("", "ab"), ("abcdefgh", "abcdefgh"))["cer"] == pytest.approx(2 / 10)


def test_a_rows_own_score_is_higher_for_a_better_row():
  rows = [{"prediction": p, "suffix": PAGE} for p in (PAGE, "4c\t4e", "x" * 40)]
  assert [own["accuracy"] for own in music.music.per_row(rows)] == pytest.approx([1, 0.5, 0])


@given(st.text("4cd\t\n", max_size=12), st.text("4cd\t\n", min_size=1, max_size=12))
def test_bounds(prediction, truth):
  got = _score((prediction, truth))
  assert all(value >= 0 for value in got.values())
  assert got["cer"] <= max(len(prediction), len(truth)) / len(truth)
  assert _score((truth, truth))["cer"] == 0
