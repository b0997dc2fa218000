"""Answers that keep to the grammar of boxes: a finite automaton over tokens, inside the loop.

    answer  = [object {" ; " object}] EOS
    object  = 4 loc tokens, 16 seg tokens where masks are asked for, " label"

A box is never empty: y1 and x1 are above y0 and x0. A label is one of those that the prompt names, in
the very tokens that training saw. No object is begun that `max_new_tokens` could not complete, and
"detect_all" does not end while it could.

The automaton is built on the host and given to the program as arrays of bucketed sizes, so that
other labels compile nothing anew. Letters: B rows, V vocabulary, S states, C classes of tokens.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from paligemma_jax import errors

KINDS = ("detect", "detect_all", "segment", "refer")
# Classes of tokens; those that labels are made of follow. The last loc token only ends a side.
_OTHER, _EOS, _LOC, _LAST_LOC, _SEG, _WORD = range(6)
_NUM_LOC, _NUM_SEG, _NUM_CODES = 1024, 128, 16
_MARKS = ";<>\n"  # what no label holds
_SMALLEST = 128  # S and C; the next ones are twice as large
_END = 0  # the state after EOS
_NEVER = 2**30  # more tokens than may come


class Grammar(NamedTuple):
  """What rows may answer, as arrays; rows with the same labels share states."""

  classes: Int[np.ndarray, " V"]  # class of every token
  table: Int[np.ndarray, "S C"]  # the state after a token of that class; -1: not allowed
  need: Int[np.ndarray, " S"]  # tokens to the end of the answer, whichever label is taken
  rises: Bool[np.ndarray, " S"]  # the next token must be above the one before the last
  start: Int[np.ndarray, " B"]
  more: Int[np.ndarray, " B"]  # tokens of another object; no EOS while they fit


class Place(NamedTuple):
  """Where rows stand in their grammar."""

  state: Int[Array, " B"]
  left: Int[Array, " B"]  # tokens that may still come
  last: Int[Array, " B"]  # the newest token, and the one before
  before: Int[Array, " B"]
  more: Int[Array, " B"]  # of the grammar


def begin(grammar: Grammar, max_new_tokens: int) -> Place:
  """The place before the first token."""
  start = jnp.asarray(grammar.start)
  zero = jnp.zeros_like(start)
  return Place(start, zero + max_new_tokens, zero, zero, jnp.asarray(grammar.more))


def allowed(grammar: Grammar, place: Place) -> Bool[Array, "B V"]:
  """Which tokens may come next; at least one of a row that has not ended."""
  then = jnp.asarray(grammar.table)[place.state]
  need = jnp.asarray(grammar.need)[jnp.maximum(then, 0)]
  fits = (then >= 0) & (need < place.left[:, None])
  goes_on = (place.left >= place.more) & fits.at[:, _EOS].set(False).any(axis=1)
  fits = fits.at[:, _EOS].set(fits[:, _EOS] & ~goes_on)
  higher = jnp.arange(len(grammar.classes))[None] > place.before[:, None]
  rises = jnp.asarray(grammar.rises)[place.state][:, None]
  return jnp.take(fits, grammar.classes, axis=1) & (higher | ~rises)


def step(grammar: Grammar, place: Place, token: Int[Array, " B"]) -> Place:
  """The place after one more token of every row; one that is not allowed leads anywhere."""
  then = jnp.asarray(grammar.table)[place.state, jnp.asarray(grammar.classes)[token]]
  return Place(jnp.maximum(then, 0), place.left - 1, token, place.last, place.more)


def check(constrain: str) -> str:
  """Returns `constrain` if `build` knows it; raises a UserError if not."""
  kind, colon, given = constrain.partition(":")
  if kind not in KINDS:
    raise errors.UserError(f'constrain "{constrain}" is unknown{errors.did_you_mean(kind, KINDS)}')
  if colon and (kind == "refer" or not _labels(given)):
    raise errors.UserError(
      f'constrain "{constrain}" names no label; write "detect:LABEL ; LABEL" or "{kind}"'
    )
  return constrain


def build(
  tokenizer: Any,
  vocab_size: int,
  constrain: str,
  prompts: Sequence[str | None],
  max_new_tokens: int,
) -> Grammar:
  """The grammar of the answers to some prompts.

  Args:
    tokenizer: `processing.tokenizer.Tokenizer`.
    vocab_size: V, of the model.
    constrain: "detect" or "segment" with the labels that the prompt "detect cat ; dog" names;
      "refer", a single object with its mask and no label; "detect_all", as many objects as
      `max_new_tokens` holds. Or with labels of their own after a colon, "detect:cat ; dog", where
      "detect:*" takes any.
    prompts: of every row, None for one that does not matter.
    max_new_tokens: longest answer.

  Raises:
    UserError: an unknown kind, a prompt without labels, a label that no answer can hold, or
      `max_new_tokens` too few for an answer that must not be empty.
  """
  kind, colon, given = check(constrain).partition(":")
  states, starts, wanted = _States(tokenizer), {(): (_END, _NEVER)}, []
  for prompt in prompts:
    if prompt is None:
      wanted.append(starts[()])
      continue
    labels = ("refer",) if kind == "refer" else _labels(given) if colon else _asked(kind, prompt)
    if labels not in starts:
      starts[labels] = states.add(kind, labels)
    wanted.append(starts[labels])
  grammar = states.arrays(*np.array(wanted, np.int32).reshape(-1, 2).T, vocab_size)
  if (least := int(grammar.need[grammar.start].max(initial=0))) > max_new_tokens:
    raise errors.UserError(
      f'constrain "{constrain}" takes {least} tokens, max_new_tokens is {max_new_tokens}; raise it'
    )
  return grammar


def _labels(text: str) -> tuple[str, ...]:
  """The labels of "cat ; dog", each once."""
  return tuple(dict.fromkeys(filter(None, (label.strip() for label in text.split(";")))))


def _asked(kind: str, prompt: str) -> tuple[str, ...]:
  word, _, rest = prompt.strip().partition(" ")
  verb = kind.removesuffix("_all")
  if word != verb or not _labels(rest):
    raise errors.UserError(
      f'prompt "{prompt[:40]}" is not "{verb} LABEL ; LABEL"; constrain the answer to'
      f' "{kind}:LABEL ; LABEL", or to "{kind}:*" for any labels'
    )
  return _labels(rest)


class _States:
  """The automaton while it grows."""

  def __init__(self, tokenizer: Any):
    self.tokenizer = tokenizer
    self.then: list[dict[int, int]] = [{}]  # for each state: class -> the state after it
    self.need = [0]
    self.rises = [False]
    self.classes: dict[int, int] = {}  # of the tokens that labels are made of
    self.words = False

  def add(self, kind: str, labels: tuple[str, ...]) -> tuple[int, int]:
    """The states of one set of labels; returns the first, and `Grammar.more`."""
    root = self._state()
    if kind == "refer":
      self.then[root], self.need[root] = {_EOS: _END}, 1
    else:
      ends = [self._words(root)] if labels == ("*",) else [self._label(root, x) for x in labels]
    first = root
    for _ in range(_NUM_CODES if kind in ("segment", "refer") else 0):
      first = self._state({_SEG: first})
    for rises in (True, True, False, False):  # x1, y1, x0, y0
      taken = (_LOC, _LAST_LOC) if rises else (_LOC,)
      first = self._state(dict.fromkeys(taken, first), rises)
    if kind == "refer":
      return first, _NEVER
    for start, tokens in ends:
      self._separator(start, tokens, first)
    start = self._state(self.then[first] | {_EOS: _END})  # nothing is there: EOS at once
    self.need[start] = 1
    return start, self.need[first] + len(self._behind_word()) if kind == "detect_all" else _NEVER

  def arrays(self, start: np.ndarray, more: np.ndarray, vocab_size: int) -> Grammar:
    """All of it, in arrays of the next sizes that hold it."""
    num_classes = _WORD + 1 + len(self.classes)
    S, C = (_bucket(n) for n in (len(self.then), num_classes))
    table = np.full((S, C), -1, np.int32)
    for state, then in enumerate(self.then):
      table[state, list(then)] = list(then.values())
    classes, t = np.zeros(vocab_size, np.int32), self.tokenizer
    if self.words:
      classes[list(_word_tokens(t))] = _WORD
    classes[t.eos] = _EOS
    classes[t.loc0 : t.loc0 + _NUM_LOC] = _LOC
    classes[t.loc0 + _NUM_LOC - 1] = _LAST_LOC
    classes[t.seg0 : t.seg0 + _NUM_SEG] = _SEG
    classes[list(self.classes)] = list(self.classes.values())
    need, rises = np.zeros(S, np.int32), np.zeros(S, bool)
    need[: len(self.need)], rises[: len(self.rises)] = self.need, self.rises
    return Grammar(classes, table, need, rises, start, more)

  def _label(self, root: int, label: str) -> tuple[int, list[int]]:
    """Adds a label that EOS follows; returns where, and with which tokens, a separator goes on."""
    if any(mark in label for mark in _MARKS):
      raise errors.UserError(f'label "{label}" holds one of ; < > or a line break; rename it')
    path = [root, *self._walk(root, self.tokenizer.encode_between(f" {label}"))]
    self.then[path[-1]][_EOS] = _END
    for distance, state in enumerate(reversed(path), 1):
      self.need[state] = max(self.need[state], distance)
    return root, self.tokenizer.encode_between(f" {label} ; ")

  def _words(self, root: int) -> tuple[int, list[int]]:
    """Adds a label of any words; returns as `_label`."""
    self.words = True
    words = self._state({_EOS: _END})
    self.then[root][_WORD] = self.then[words][_WORD] = words
    self.need[root] = 2
    separator = self._behind_word()
    for token in separator:
      number = self._class(token)
      if token in _word_tokens(self.tokenizer):
        self.then[root][number] = self.then[words][number] = words
    return words, separator

  def _behind_word(self) -> list[int]:
    """Tokens of the separator, behind a label whose last token it does not join."""
    word, whole = (self.tokenizer.encode_between(text) for text in (" x", " x ; "))
    return whole[len(word) :]

  def _separator(self, start: int, tokens: list[int], first: int) -> None:
    """Adds the tokens that lead from `start` to another object."""
    path = [start, *self._walk(start, tokens[:-1])]
    self.then[path[-1]][self._class(tokens[-1])] = first
    for distance, state in enumerate(reversed(path), 1):
      self.need[state] = self.need[state] or self.need[first] + distance  # labels have theirs

  @property
  def _next(self) -> int:
    """The number that the next state will have."""
    return len(self.then)

  def _state(self, then: dict[int, int] | None = None, rises: bool = False) -> int:
    """Adds a state; returns its number."""
    self.then.append(then or {})
    self.rises.append(rises)
    self.need.append(1 + max((self.need[s] for s in then.values()), default=0) if then else 0)
    return len(self.then) - 1

  def _walk(self, state: int, tokens: list[int]) -> list[int]:
    """The states after each of the tokens, made where there are none."""
    path = []
    for number in map(self._class, tokens):
      state = self.then[state].setdefault(number, self._next)
      if state == self._next:
        self._state()
      path.append(state)
    return path

  def _class(self, token: int) -> int:
    return self.classes.setdefault(token, _WORD + 1 + len(self.classes))


def _bucket(n: int) -> int:
  size = _SMALLEST
  while size < n:
    size *= 2
  return size


@functools.lru_cache(maxsize=2)
def _word_tokens(tokenizer: Any) -> frozenset[int]:
  """Tokens whose text can be part of a label."""
  texts = ((i, tokenizer.decode([i])) for i in range(tokenizer.vocab_size))
  return frozenset(i for i, text in texts if text and not any(m in text for m in _MARKS))
