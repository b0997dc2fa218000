"""Which characters beyond ASCII the Treebank tokeniser knows, and as what: measured one by one.

Letters and digits are those of Unicode's categories, up to the version of 2012. Anything that is
neither in a table here nor written as something else in `ptb` is taken out, with a gap in its place.
"""

import functools
import unicodedata

LETTER, DIGIT, MARK, SYMBOL, UNKNOWN = "é", "٣", "\u0300", "§", "\x07"
QUOTES = "‚„‟‘’‛‹›«»“”\x91\x92\x93\x94"
DASHES, HYPHENS, CURRENCY, FRACTIONS = "–—―\x96\x97", "֊‐‑", "¤₠€\x80£¢", "¼½¾⅓⅔"
SPOKEN_FOR = (
  QUOTES + DASHES + HYPHENS + CURRENCY + FRACTIONS + "…٫٬⁄\xa0\xad⁺⁻₊₋⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"
)

# Go on with a word, or begin one.
_MARKS = """
  2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf
  5c1-5c2 5c4-5c5 5c7 615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0
  7eb-7f3 900-903 93c 93e-94e 951-955 962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3
  a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 bc6-bc8 bca-bcd c01-c03 c3e-c56 d3e-d44
  d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd
"""

# Stand alone.
_SYMBOLS = """
  a1 a5-a9 ac ae-b4 b6-b9 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b
  61e-61f 66a 66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 201a 201e-2023 2030-2038
  203b 203e-2042 2070 2074-207e 2080-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118
  211e-2123 2125 2127 2129 212e 213a-213b 2140-2144 214a-214d 214f 2155-215e 2190-2bff 3001-3002
  3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 ffe0-ffe1 ffe5-ffe6
"""

# Letters and digits that came later.
_NEWER = """
  37f 528-52f 560 588 5ef 860-88e 8a1 8ad-8c9 978 980 9fc af9 c34 c5a-c5d c80 cdd d04 d54-d5f
  de6-def e86 e89 e8c e8e-e93 e98 ea0 ea8-ea9 eac 13f5-13fd 16f1-16f8 170d 171f 1878 191d-191e
  19b0-19c0 19c8-19c9 1b4c 1c80-1cbf 1cf2-1cf3 1cfa 2c2f 2c5f 312e-312f 31bb-31bf 4db6-4dbf
  9fcd-9fff a698-a69d a78f a794-a79f a7ab-a7f7 a8fd-a8fe a9e0-a9fe aa7e-aa7f ab30-abbf
"""


class _Classes(dict):
  """Code point -> what stands for it; found out when it is first asked for."""

  def __missing__(self, code: int) -> str:
    category = unicodedata.category(chr(code))
    if code in _code_points(_MARKS):
      self[code] = MARK
    elif code in _code_points(_SYMBOLS):
      self[code] = SYMBOL
    elif code > 0xFFFF or code in _code_points(_NEWER):
      self[code] = UNKNOWN  # characters of two UTF-16 units are none to it
    elif category[0] == "L" or code in (0x1885, 0x1886):
      self[code] = LETTER
    else:
      self[code] = DIGIT if category == "Nd" else UNKNOWN
    return self[code]


# ASCII, and what `ptb` has rules for, stand for themselves.
_CLASSES = _Classes({ord(c): c for c in map(chr, range(128))} | {ord(c): c for c in SPOKEN_FOR})


def simplify(text: str) -> str:
  """The text, equally long, with one letter for all letters beyond ASCII, and so on."""
  return text if text.isascii() else text.translate(_CLASSES)


@functools.cache
def _code_points(ranges: str) -> frozenset[int]:
  bounds = [[int(end, 16) for end in part.split("-")] for part in ranges.split()]
  return frozenset(code for ends in bounds for code in range(ends[0], ends[-1] + 1))
