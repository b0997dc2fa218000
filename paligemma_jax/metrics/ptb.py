"""English words as the Penn Treebank splits them, lower-cased and without punctuation.

Caption scores count the tokens that Stanford CoreNLP 3.4.1 makes (`PTBTokenizer -preserveLines
-lowerCase`, called by pycocoevalcap). These are the same ones, without Java: the rules of
`ptb_rules` were fitted to what the tool prints, and are compared with it on random strings.
"""

import re

from paligemma_jax.metrics import ptb_chars, ptb_rules

# Tokens that pycocoevalcap takes out. It looks for brackets in capitals, so they stay (-lrb-).
_DROPPED = frozenset("'' ' `` ` . ? ! , : - -- ... ;".split())
# Whole tokens that are written in another way; "" for what is taken out.
_WRITTEN = {
  "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
  **dict.fromkeys("¤₠€\x80", "$"), "£": "#", "¢": "cents",
  "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
  "&amp;": "&", "&lt;": "<", "&gt;": ">",
  **dict.fromkeys(["&nbsp;", "&mdash;", "&ndash;", "&md;"], ""),
  **dict.fromkeys(["…", '"', "---", "----", *ptb_chars.DASHES, *ptb_chars.HYPHENS], ""),
}  # fmt: skip
_QUOTES = str.maketrans({
  **dict.fromkeys("‘‛‹\x91", "`"), **dict.fromkeys("’›\x92", "'"),
  **dict.fromkeys("«“\x93", "``"), **dict.fromkeys("»”\x94", "''"),
})  # fmt: skip
# Characters inside longer tokens.
_INSIDE = str.maketrans({"\xad": None, "(": "-lrb-", ")": "-rrb-", " ": "\xa0", "‛": "`"})

# Letters with an accent, written out.
_ENTITY = re.compile("&[aeiou](?:acute|grave|uml);", re.IGNORECASE)

# Most of a caption needs no rules: letters, perhaps a mark, white space.
_PLAIN = re.compile("([A-Za-z]+)([.,!?;:]?)(?=[ \t\n])")


def tokenize(text: str, after: str = "\n") -> str:
  """The tokens of one caption with single spaces between.

      "A dog's (red) bone, isn't it?"  ->  "a dog 's -lrb- red -rrb- bone is n't it"

  A token may hold a no-break space (phone numbers, "2 1/2").

  Args:
    text: line ends in it count as spaces.
    after: what follows in the same call of the tool, which now and then looks ahead: "\\n" and the
      next caption, or "" after the last. By default a line end, so that captions do not depend on
      each other.
  """
  text = " ".join(text.splitlines())
  plain = _ENTITY.sub(lambda m: ptb_chars.LETTER * len(m[0]), ptb_chars.simplify(text + after))
  tokens, at = [], 0
  while at < len(text):
    if plain[at] in " \t":
      at += 1
    elif (match := _PLAIN.match(plain, at)) and _is_plain(match[1].lower(), match[2]):
      tokens.append(match[1].lower())
      at = match.end()
    else:
      end, rule = ptb_rules.longest(plain, at)
      tokens.append(_written(text[at:end], rule))
      at = end
  return " ".join(token for token in tokens if token and token not in _DROPPED).rstrip()


def _is_plain(word: str, mark: str) -> bool:
  if word in ptb_rules.SPLIT:
    return False
  return mark != "." or (len(word) > 1 and word not in ptb_rules.ABBREVIATIONS)


def _written(token: str, rule: str) -> str:
  """How a token is printed."""
  if rule == "address":
    return token.lower()
  if token in ("&quot;", "&apos;") or not token.strip(". \xa0"):
    return ""  # other than in capitals
  if (known := _WRITTEN.get(token.lower())) is not None:
    return known
  if rule == "quote":
    return token.translate(_QUOTES)
  if rule == "clitic":
    token = re.sub("[‘\x91‛]", "`", re.sub("&apos;|[’\x92]", "'", token))
  if ptb_chars.simplify(token) == ptb_chars.UNKNOWN:
    return ""
  return re.sub("(?i:&amp;)", "&", token).translate(_INSIDE).lower()
