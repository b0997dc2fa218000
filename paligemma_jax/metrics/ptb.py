"""English words as the Penn Treebank splits them, lower-cased and without punctuation.

Caption scores count the tokens that Stanford CoreNLP 3.4.1 makes (`PTBTokenizer -preserveLines
-lowerCase`, called by pycocoevalcap); these are the same ones, without Java. Its behaviour was
measured on the tool itself: rules below are tried at every place, the longest match wins, and among
equally long ones the first. What a rule matches after its first group only has to follow, but it
counts for the length.
"""

import re

from paligemma_jax.metrics import ptb_chars

# Tokens that pycocoevalcap takes out; it looks for brackets in capitals, so they stay (-lrb-).
_DROPPED = frozenset("'' ' `` ` . ? ! , : - -- ... ;".split())
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN = {
  **_BRACKETS,
  **dict.fromkeys("¤₠€\x80", "$"), "£": "#", "¢": "cents",
  "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
  "&amp;": "&", "&lt;": "<", "&gt;": ">",
  **dict.fromkeys(["…", '"', "&quot;", "&apos;", "--", "---", "----", "&mdash;", "&nbsp;"], "."),
  **dict.fromkeys(ptb_chars.DASHES + ptb_chars.HYPHENS, "."),
}  # fmt: skip

_QUOTES = str.maketrans(
  {**dict.fromkeys("‘‛‹\x91", "`"), **dict.fromkeys("’›\x92", "'"),
   **dict.fromkeys("«“\x93", "``"), **dict.fromkeys("»”\x94", "''")}
)  # fmt: skip
# Inside other tokens.
_INSIDE_TOKENS = str.maketrans(
  {"\xad": None, "(": "-lrb-", ")": "-rrb-", " ": "\xa0"} | dict.fromkeys("‛", "`")
)

# Pieces of the patterns, in the alphabet of `ptb_chars.simplify`.
_L = "[A-Za-zé]"
_D = "[0-9٣]"
_LD = "[A-Za-zé0-9٣]"
_START, _INSIDE = "[A-Za-zé\u0300\xad]", "[A-Za-zé\u0300\xad0-9٣]"
_WORD = f"{_START}{_INSIDE}*(?:[.!?]{_START}{_INSIDE}*)*"
_APOS = "(?:['’\x92]|&[aA][pP][oO][sS];)"
_HYPHEN = "[-_֊‐‑]"
_NUMBER = f"(?:{_D}+(?:[.:,٫٬\xad]{_D}+)*|(?:[.:,٫٬\xad]{_D}+)+)"
_TICK = "(?:['’\x92`‘\x91‛]|&[aA][pP][oO][sS];)"
_PARTICLE = f"(?:[dDoOlL]{_TICK}{_LD})?"
_THING = f"{_PARTICLE}{_LD}+(?:{_HYPHEN}{_PARTICLE}{_LD}+)*"
_COMPOUND = r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]+))+"
_AND = "[A-Z]+(?:(?:[+]|&[aA][mM][pP];|&)[A-Z]+)+"
_CLITIC = f"{_APOS}(?:[mdsMDS]|[rR][eE]|[vV][eE]|[lL][lL])"
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_IN_URL, _ENDS_URL = '[^ \t\n"<>|(){}]', '[^ \t\n"<>|.!?(){},-]'
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_TAG = f"<(?:[!?][A-Za-z-][^>\n]*|/{_NAME}|{_NAME}(?: +{_NAME}(?: *= *(?:'[^']*'|\"[^\"]*\"|{_NAME}))?)*) */? *>"
# Abbreviations of which a sentence may end, and those of which it does not.
_ENDING = """
  al co ct ga jr ky md mo rd rt sq sr va vt ala apr aug bhd cos dak dec esq est etc ext feb fla
  fri inc ind jan jul jun kan ltd mar mon neb nev nov oct plc sep seq sys tel thu tue wed wis
  wyo pte pty ariz assn bldg blvd bros colo conn corp intl kans mich minn mont okla penn ppte
  ppty ptes ptys sept tenn tues univ wisc calif pptes pptys thurs
""".split()
_INNER = """
  cf dr ft lt mr ms mt ph st vs wm adj adm adv ave cie col cpl det drs ens gen gov hon jos maj
  mme mrs pfc pvt rep rev sen sfc sgt spc ste mfg mtg alex asst atty brig capt cmdr dept elec
  govs insp invt mlle msgr natl pres prof reps sens supt assoc attys comdr lieut profs supts
  treas messrs
""".split()
# The words that show that an initial before them was the end of a sentence.
_STARTERS = """
  A An As At He If In It So We But Her Now One Our She The Yet You This That These There They
  Then Their When While What Many Some After However Since According Earlier Such Here Once Other More About Last
""".split()
_CAPITALISED = "az la pa ark del ill ore tex mass miss wash".split()
_BEFORE_NUMBER = "no nos op art fig figs prop ca pp".split()

_ENDINGS = """
  c h x gz pl ps py bat bmp cgi cpp dll doc exe gif htm jar jpg mov mp3 pdf php png ppt sql tar txt
  wav xml zip docx html java jpeg class
""".split()


def _any_case(words) -> str:
  return "|".join(
    "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in word)
    for word in sorted(words, key=len, reverse=True)
  )


def _capitalised(words) -> str:
  return "|".join(word[0].upper() + _any_case([word[1:].lower()]) for word in words)


_FILE = f"({_INSIDE}+(?:\\.{_INSIDE}+)*\\.(?:{_any_case(_ENDINGS)}))[ \\t\\n\\xa0.?!,]"


_ADDRESSES = [
  f"[hH][tT][tT][pP][sS]?://{_IN_URL}+{_ENDS_URL}",
  r'(?:[wW]{3}\.(?:[^ \t\n"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|(?:[^ \t\n"`\'<>|.!?(){},-_$]+\.)+(?:[cC][oO][mM]|[nN][eE][tT]|[oO][rR][gG]|[eE][dD][uU]))'
  f'(?:/[^ \t\n"<>|()]+{_ENDS_URL})?',
  r'(?:<|&lt;)?[a-zA-Z0-9][^ \t\n"<>|()\xa0{}]*@(?:[^ \t\n"<>|().\xa0{}]+\.)*[^ \t\n"<>|().\xa0{}]+(?:>|&gt;)?',
]
_RULES = [
  # Markup.
  _TAG,
  f"&(?:{_any_case(['amp', 'lt', 'gt', 'quot', 'nbsp', 'mdash', 'apos'])});|&#[0-9]+;",
  # Two words written as one.
  "([cC][aA][nN])[nN][oO][tT]",
  "([gG][oO][nN]|[wW][aA][nN])[nN][aA]",
  "([gG][oO][tT])[tT][aA]",
  "([lL][eE][mM]|[gG][iI][mM])[mM][eE]",
  "('[tT])(?:[iI][sS]|[wW][aA][sS])",
  # Words, and words before a clitic.
  f"({_WORD}){_CLITIC}",
  f"([A-Za-z\xad]*[A-MO-Za-mo-z])[nN]{_TICK}[tT]",
  _WORD,
  f"({_CLITIC})[^A-Za-z]",
  f"[nN]{_TICK}[tT]",
  f"{_APOS}[nN]{_APOS}?|[lLdDjJ]{_APOS}|[oO][lL]{_APOS}|{_APOS}[eE][mM]|{_APOS}[2-9]0[sS]"
  f"|{_APOS}[tT][iI][lL][lL]?|{_APOS}[cC][aA][uU][sS][eE]",
  f"[A-HJ-XZn]{_TICK}{_L}{{2,}}|{_L}+[aeiouyAEIOUY]{_TICK}[aeiouA-Z]{_L}*|[nN]?[eE]{_TICK}[eE][rR]",
  f"(?:[dD][uU][nN][kK][iI][nN]|[sS][oO][mM][eE][tT][hH][iI][nN]){_APOS}|[cC][aA][pP]{_TICK}[nN]|[mM][aA]{_TICK}[aA][mM]",
  "(')[A-Za-z][^ \t\n\xa0]",
  _CLITIC,
  f"({_APOS}[0-9]{{2}})[ \t\n\xa0]",
  f"([yY]{_APOS})(?={_L})",
  # Addresses.
  *_ADDRESSES,
  "@[A-Za-z_][A-Za-z_0-9]*",
  f"#{_L}+",
  # Numbers.
  f"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}",
  f"[-+]?{_NUMBER}",
  f"(?:{_D}{{1,4}}[- \xa0])?{_D}{{1,4}}(?:\\\\?/|⁄){_D}{{1,4}}",
  r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])[0-9]{3,4}[- \xa0]?[0-9]{3,5}",
  r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
  r"[A-Z]*\$",
  # Abbreviations.
  f"((?:{_any_case(_ENDING)}|{_capitalised(_CAPITALISED)})\\.)(?:[\\s\\S]{{2}})?",
  f"(?:{_any_case(_INNER)})\\.",
  f"([A-Za-z])\\.[ \t\n\xa0]+(?:{_capitalised(_STARTERS)}|M[rRsS]\\.|{_TAG})[ \t\n\xa0]",
  f"((?:{_any_case(_BEFORE_NUMBER)})\\.)(?:[ \t\n\xa0]?{_D})",
  r"[A-Za-z](?:\.[A-Za-z])*\.",
  r"([pP][hH]\.[dD]\.|[eE]d\.D\.)(?:[\s\S]{2})?",
  # Compounds.
  _FILE,
  _THING,
  f"((?:{_WORD}|{_THING}|{_COMPOUND}|{_AND})\\.)[,;:]",  # before more marks a stop stays
  _COMPOUND,
  f"{_SLASHED}(?:\\\\?/{_SLASHED}){{1,2}}",
  _AND,
  r"C\+\+|[cCF]#",
  # Faces.
  r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]",
  r"[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)",
  # Runs of marks.
  r"\*+|\\\*|[⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+)|-{5,}|-{2,4}|_+|#+|@+|<<|>>|\.{3,5}|(?:\.[ \xa0]){2,4}\.|[?!]+|''|[`‚„‟‘’‛‹›«»“”\x91-\x94]{1,2}",
  r"[^ \t\n]",
]
_IS_QUOTES = re.compile("[`‚„‟‘’‛‹›«»“”\x91-\x94]{1,2}")
_IS_CLITIC = re.compile(f"{_CLITIC}|[nN]{_TICK}[tT]")
_VERBATIM = {*_ADDRESSES, _FILE}
_COMPILED = [re.compile(rule) for rule in _RULES]
_PLAIN = re.compile("([A-Za-z]+)([.,!?;:]?)(?=[ \t\n])")
_SPLIT = frozenset("cannot gonna wanna gotta lemme gimme".split())
_WITH_STOP = frozenset([*_ENDING, *_INNER, *_CAPITALISED, *_BEFORE_NUMBER])


def tokenize(text: str, after: str = "\n") -> str:
  """The tokens of one caption, with single spaces between; the line ends of the text are spaces."""
  text = " ".join(text.splitlines())
  plain, tokens, at = ptb_chars.simplify(text + after), [], 0
  while at < len(text):
    if plain[at] in " \t":
      at += 1
      continue
    match = _PLAIN.match(plain, at)
    if match and match[1].lower() not in _SPLIT:
      word = match[1].lower()
      if match[2] != "." or (len(word) > 1 and word not in _WITH_STOP):
        tokens.append(word)
        at = match.end()
        continue
    end, rule = _longest(plain, at)
    token = text[at:end]
    tokens.append(token.lower() if rule in _VERBATIM else _written(token))
    at = end
  return " ".join(token for token in tokens if token and token not in _DROPPED).rstrip()


def _longest(plain: str, at: int) -> tuple[int, str]:
  """Where the token ends that begins here, and the rule that says so."""
  longest, end, best = -1, at + 1, ""
  for rule in _COMPILED:
    match = rule.match(plain, at)
    if match and match.end() > longest:
      longest, best = match.end(), rule.pattern
      end = match.end(1) if rule.groups and match[1] is not None else longest
  return end, best


def _written(token: str) -> str:
  if not token.strip(". \xa0") or ptb_chars.simplify(token) == ptb_chars.UNKNOWN:
    return "."
  if token in _WRITTEN or token.lower() in _WRITTEN and token.lower() not in ("&quot;", "&apos;"):
    return _WRITTEN[token.lower()]
  if _IS_QUOTES.fullmatch(token):
    return token.translate(_QUOTES)
  if _IS_CLITIC.fullmatch(token):
    token = re.sub("[‘\x91‛]", "`", re.sub("&apos;|[’\x92]", "'", token))
  return re.sub("&[aA][mM][pP];", "&", token).translate(_INSIDE_TOKENS).lower()
