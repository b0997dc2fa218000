"""Texts with {fields} of a record in them: prompts and answers."""

import string
from typing import Any

from paligemma_jax import errors


def check(text: str, name: str) -> None:
  """Raises a UserError that names `name` if the text is no template."""
  try:
    list(string.Formatter().parse(text))
  except ValueError as e:
    raise errors.UserError(
      f'{name}: "{text}" is no template ({e}); write {{field}}, and {{{{ for a brace'
    ) from None


def fill(template: str, values: dict[str, Any]) -> str:
  """`template` with its {fields}; a list is joined by what stands after the colon, or by ", "."""
  try:
    return _Joining().vformat(template, (), values)
  except (AttributeError, IndexError, TypeError, ValueError) as e:
    raise errors.UserError(f'the template "{template}" does not fit the record ({e})') from None


class _Joining(string.Formatter):
  """`{options: \\t }` joins a list; a null is no text."""

  def get_field(self, field_name, args, kwargs):
    found, first = super().get_field(field_name, args, kwargs)
    if found is None or (isinstance(found, list) and None in found):
      holds = "is null" if found is None else "holds null"
      raise errors.UserError(f'"{field_name}" {holds}, but is to be a part of the text; write it')
    return found, first

  def format_field(self, value, format_spec):
    if isinstance(value, list):
      return (format_spec or ", ").join(map(str, value))
    return super().format_field(value, format_spec)


def fields(template: str) -> list[str]:
  """Keys that a template refers to."""
  return [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
