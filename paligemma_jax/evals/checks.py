"""What evaluations need of their data and of the model, told before any model is loaded."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from paligemma_jax import errors, metrics
from paligemma_jax.data import sources, tasks

Rows = Iterable[tuple[str, dict]]  # (place, row without prediction)
SET_CODEC = (
  "set --config.input.codec=FILE, or train one: `paligemma codec train --data FILE --out FILE`"
)


class Malformed(errors.UserError):
  """A record is none of its task; `data.checks` tells all of them."""


def check(evals: Mapping[str, Mapping[str, Any]], codec: dict | None) -> None:
  """Raises one errors.UserError with a line for every evaluation that could not be scored.

  Args:
    evals: name -> evaluation, as `transfers/common.evaluate` makes it. Their data are well-formed,
      see `data.checks`.
    codec: parameters of `models.vqvae`, or None.
  """
  if found := findings(evals, codec):
    raise errors.UserError("\n".join(found))


def findings(evals: Mapping[str, Mapping[str, Any]], codec: dict | None) -> list[str]:
  """A line for every evaluation that could not be scored, beginning with its config path."""
  lines = []
  for name, one in evals.items():
    where = f"evals.{name}"
    score = metrics.resolve(one["metric"], f"{where}.metric")
    try:
      check_codec(score, codec, SET_CODEC)
      source = sources.open_source(one["data"], f"{where}.data")
      rows = rows_of(source, tasks.Rules.of(one["data"], f"{where}.data"), one["limit"])
      check_rows(rows, score, one.get("answers", ()), first=source.holds_pictures)
    except Malformed:
      continue
    except errors.UserError as e:
      lines.append(f"{where}: {e}")
  return lines


def check_codec(score: Callable, codec: dict | None, what_to_do: str, where: str = "") -> None:
  """Raises a UserError if masks are to be scored without a codec."""
  if task_of(score) == "segment" and codec is None:
    raise errors.UserError(f"{where}masks are scored, but there is no mask codec; {what_to_do}")


def check_rows(
  rows: Rows, score: Callable, answers: Sequence[str] = (), first: bool = False
) -> None:
  """Raises a UserError if the rows hold nothing to compare with, or what cannot be compared.

  Args:
    rows: of an evaluation; none is an error as well.
    score: a function from `metrics/`; a user's own is not asked.
    answers: as `choices`.
    first: whether to look no further than to the first with something: each takes time to read.
  """
  target, count, has_any, wrong = getattr(score, "target", None), 0, False, ""
  for place, row in rows:
    count += 1
    try:
      choices(answers, row)
      if target is not None:
        has_any = any(not isinstance(x, str) or x.strip() for x in target.of(row)) or has_any
    except errors.UserError as e:
      raise errors.UserError(f"{place}: {e}") from None
    try:
      if target is not None:
        score.check(row)
    except errors.UserError as e:
      wrong = wrong or f"{place}: {e}"
    if first and (has_any or target is None):
      break
  if not count:
    raise errors.UserError("nothing to evaluate: no examples")
  if target is not None and not has_any:
    raise errors.UserError(target.missing(count))
  if wrong:
    raise errors.UserError(wrong)


def choices(answers: Sequence[str], row: dict) -> list[str]:
  """The answers that a row may have.

  Args:
    answers: texts; "{field}" stands for the text, or the list of texts, in that key of the row.
      (): the row is free to answer.
  """
  found = []
  for text in answers:
    key = text[1:-1] if text.startswith("{") and text.endswith("}") else None
    if key is not None and key not in row:
      raise errors.UserError(f'answers: no key "{key}" in the rows (found: {", ".join(row)})')
    found += [text] if key is None else [row[key]] if isinstance(row[key], str) else row[key]
  if answers and not found:
    raise errors.UserError("answers: there are none to choose from")
  return found


def task_of(score: Callable) -> str:
  """As which kind of examples the records of a file are read for a score: "text", "detect" or "segment"."""
  target = getattr(score, "target", None)
  return target.task if target is not None else "text"


def rows_of(source: sources.Source, rules: tasks.Rules, limit: int = 0) -> Rows:
  """The examples of a source, the first `limit` of them unless that is 0, before a picture is read.

  Raises:
    Malformed: a record is none of the task.
  """
  for i in range(min(limit or len(source), len(source))):
    place = source.place(i)
    try:
      row = tasks.as_row(source[i], rules)
    except errors.UserError as e:
      text = str(e)
      raise Malformed(text if text.startswith(place) else f"{place}: {text}") from None
    except KeyError as e:
      raise Malformed(f'{place}: no key "{e.args[0]}" in the record or its objects') from None
    except (LookupError, TypeError, ValueError, AttributeError):
      text = f"no record of the task {rules.task}; `paligemma data check` says why"
      raise Malformed(f"{place}: {text}") from None
    yield place, row
