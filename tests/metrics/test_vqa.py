import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_jax import errors
from paligemma_jax.metrics import vqa
from tests.metrics import golden


@pytest.mark.parametrize(
  "answers, prediction, want",
  [
    (["2"] * 9 + ["3"], "2.", 1.0),
    (["2"] * 10, "2.", 0.0),  # all agree: nothing is normalised
    (["t-shirt"] * 4 + ["t shirt"] * 3 + ["tshirt"] * 2 + ["shirt"], "tshirt", 0.6),
    (["t-shirt"] * 4 + ["t shirt"] * 3 + ["tshirt"] * 2 + ["shirt"], "T-Shirt", 1.0),
    (["two"] * 3 + ["three"] * 7, "2", 0.9),
    (["yes"] * 10, "Yes", 0.0),
    (["yes"] * 10, "\tyes \n", 1.0),  # but white space goes
  ],
)
def test_accuracy(answers, prediction, want):
  assert vqa.accuracy(prediction, answers) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("matches, want", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_by_number_of_matches(matches, want):
  answers = ["cat"] * matches + ["dog"] * (10 - matches)
  assert vqa.accuracy("cat", answers) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(
  "text, want",
  [
    ("2.", "2"),
    ("3.5", "3.5"),
    (".5", ".5"),
    ("a.b", "ab"),
    ("t-shirt", "t shirt"),
    ("red - blue", "red blue"),
    ("1,000-2,000", "10002000"),  # a comma between digits deletes all punctuation
    ("a dog and the cat", "dog and cat"),
    ("None", "0"),
    ("dont", "don't"),
    ("somebody'd", "somebodyd"),  # as the official list has it
    ("50% & up: it's", "50% & up: it's"),  # these marks stay
  ],
)
def test_normalize(text, want):
  assert vqa.normalize(text) == want


def test_golden_normalize():
  for case in golden.load("vqa_normalize")["cases"]:
    assert vqa.strip(case["text"]) == case["stripped"]
    assert vqa.normalize(case["stripped"]) == case["normalized"], case["text"]


def test_golden_accuracy():
  data = golden.load("vqa_accuracy")
  rows = [{**case, "suffix": case["answers"]} for case in data["cases"]]
  for case, row, own in zip(data["cases"], rows, vqa.vqa_v2.per_row(rows), strict=True):
    assert vqa.vqa_v2([row])["acc"] == pytest.approx(case["accuracy"], abs=1e-6)
    assert own["acc"] == pytest.approx(case["accuracy"], abs=1e-6)
  want = {name: value for name, value in data["aggregate"].items() if name != "num"}
  assert vqa.vqa_v2(rows) == pytest.approx(want, abs=1e-6)


def test_only_the_kinds_that_are_there_are_reported():
  row = {"prediction": "yes", "suffix": ["yes"] * 10, "answer_type": "yes/no"}
  assert vqa.vqa_v2([row, row]) == {"acc": 1, "acc/yesno": 1, "num/yesno": 2}
  assert vqa.vqa_v2([{**row, "answer_type": None}]) == {"acc": 1}
  assert vqa.vqa_v2([row, {**row, "suffix": []}]) == vqa.vqa_v2([row])


@pytest.mark.parametrize(
  "change, match",
  [({"suffix": ["yes"] * 3}, "10 answers, found 3"), ({"answer_type": "numbr"}, 'mean "number"')],
)
def test_what_the_reference_cannot_score_is_an_error(change, match):
  row = {"prediction": "yes", "suffix": ["yes"] * 10, "answer_type": "other"}
  with pytest.raises(errors.UserError, match=match):
    vqa.vqa_v2([row | change])


@pytest.mark.parametrize(
  "answers, prediction, lower, want",
  [
    (["cat", "cat", "dog"], "cat", False, (2 / 3, 1, 1)),
    (["Dog"], "dog", False, (0, 0, 2 / 3)),
    (["Dog"], "dog", True, (1 / 3, 1, 1)),
    ("True", "True ", False, (0, 0, 0.8)),  # as it stands: no strip
    ("Yes", "yes", True, (1, 1, 1)),
  ],
)
def test_simple_answers(answers, prediction, lower, want):
  score = vqa.vqa_lower if lower else vqa.vqa
  got = score([{"prediction": prediction, "suffix": answers}])
  assert got == pytest.approx(dict(zip(("acc", "acc_any", "anls"), want)))


@pytest.mark.parametrize("name", ["raw", "lower"])
@pytest.mark.parametrize("kind, key", [("multi", "answers"), ("single", "answer")])
def test_golden_simple(name, kind, key):
  data, score = golden.load("vqa_simple")[name], {"raw": vqa.vqa, "lower": vqa.vqa_lower}[name]
  rows = [{**case, "suffix": case[key]} for case in data[kind]]
  for row, got in zip(rows, score.per_row(rows), strict=True):
    assert got == pytest.approx(_but_num(row["metrics"]), abs=1e-6)
  assert score(rows) == pytest.approx(_but_num(data[f"{kind}_aggregate"]), abs=1e-6)


def test_golden_rsvqa():
  data = golden.load("rsvqa")
  rows = [{**case, "suffix": case["answers"]} for case in data["cases"]]
  assert vqa.rsvqa(rows) == pytest.approx(_but_num(data["aggregate"]), abs=1e-6)


def test_rsvqa_takes_lists_and_strings():
  kinds = [("comp", "yes", "Yes"), ("comp", "no", "yes"), ("presence", "no", "no")]
  kinds += [("count", "0", "3")]
  rows = [{"question_type": k, "prediction": p, "suffix": s} for k, p, s in kinds]
  got = vqa.rsvqa(rows)
  want = {"acc": 1 / 6, "acc_any": 0.5, "acc_avg": 0.5, "acc_avg_nonum": 0.75}
  assert {name: got[name] for name in want} == pytest.approx(want)
  assert vqa.rsvqa([{**row, "suffix": [row["suffix"]]} for row in rows]) == got


words = st.text("ab A'.,-!?29é", max_size=8)


@given(st.lists(words, min_size=10, max_size=10), words, st.randoms())
def test_neither_order_nor_white_space_around_answers_matters(answers, prediction, random):
  shuffled = [f" {a}\n" for a in random.sample(answers, 10)]
  want = vqa.accuracy(prediction, answers)
  assert 0 <= want <= 1
  assert vqa.accuracy(f"\t{prediction} ", shuffled) == want


@given(st.lists(words, min_size=1, max_size=5), st.randoms())
def test_an_answer_of_the_annotators_is_right(answers, random):
  row = {"prediction": random.choice(answers), "suffix": answers}
  got = vqa.vqa([row])
  assert got["acc_any"] == 1 and got["anls"] == 1 and got["acc"] >= 1 / 3 - 1e-9


def _but_num(scores):
  return {name: value for name, value in scores.items() if name != "num"}
