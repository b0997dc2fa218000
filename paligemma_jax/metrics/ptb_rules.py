"""What makes a token to the Treebank tokeniser: see `ptb`.

Rules are tried at every place; the longest match wins, and among equally long ones the first. Where a
rule has a group, that is the token: the rest only has to follow, but counts for the length. Texts
are in the alphabet of `ptb_chars.simplify`: é stands for all letters beyond ASCII, ٣ for all digits,
U+0300 for all marks.
"""

import re

# Abbreviations that keep their full stop in any case: with which a sentence may end, or not.
_LAST = """
  al co ct ga jr ky md mo rd rt sq sr va vt ala apr aug bhd cos dak dec esq est etc ext feb fla fri
  inc ind jan jul jun kan ltd mar mon neb nev nov oct plc sep seq sys tel thu tue wed wis wyo ariz
  assn bldg blvd bros colo conn corp intl kans mich minn mont okla penn sept tenn tues univ wisc
  calif thurs
""".split()
_INNER = """
  cf dr ft lt mr ms mt ph st vs wm adj adm adv ave cie col cpl det drs ens gen gov hon jos maj mme
  mrs pfc pvt rep rev sen sfc sgt spc ste alex asst atty brig capt cmdr dept elec govs insp invt
  mlle msgr natl pres prof reps sens supt assoc attys comdr lieut profs supts treas messrs
""".split()
_CAPITALISED = "Az La Pa Ark Del Ill Ore Tex Mass Miss Wash".split()  # else they are words
_BEFORE_NUMBER = "no nos op art fig figs prop ca pp".split()
_LIMITED = "pte pty ptes ptys ppte ppty pptes pptys mfg mtg".split()  # one letter in one case only
_KNOWN = (*_LAST, *_INNER, *_CAPITALISED, *_BEFORE_NUMBER, *_LIMITED)
ABBREVIATIONS = frozenset(word.lower() for word in _KNOWN)
# Before these, an initial was the end of a sentence.
_STARTERS = """
  A An As At He If In It So We But Her Now One Our She The Yet You This That These There They Then
  Their When While What Many Some After However Since According Earlier Such Here Once Other More
  About Last
""".split()
_FILES = """
  c h x gz pl ps py bat bmp cgi cpp dll doc exe gif htm jar jpg mov mp3 pdf php png ppt sql tar txt
  wav xml zip docx html java jpeg class
""".split()
# Words with an apostrophe that stay whole; only the straight one does.
WHOLE = "c'mon c'est s'mores ev'ry li'l nat'l nor'easter cont'd.".split()
SPLIT = frozenset("cannot gonna wanna gotta lemme gimme".split())  # two words written as one


def _any_case(words) -> str:
  return f"(?i:{'|'.join(words)})"


def _capitalised(words) -> str:
  return f"(?:{'|'.join(word[0] + _any_case([word[1:]]) for word in words)})"


_LETTER, _DIGIT, _ALNUM = "[A-Za-zé]", "[0-9٣]", "[A-Za-zé0-9٣]"
_WHITE, _BLACK = "[ \t\n\xa0]", "[^ \t\n\xa0]"
_APOSTROPHE = "(?:['’\x92]|(?i:&apos;))"
_TICK = "(?:['’\x92`‘\x91‛]|(?i:&apos;))"

# Words, with marks and soft hyphens inside; "dog.cat" and "Yahoo!Inc" are one.
_START, _INSIDE = "[A-Za-zé\u0300\xad]", "[A-Za-zé\u0300\xad0-9٣]"
_PART = f"{_START}{_INSIDE}*"
_WORD = f"{_PART}(?:[.!?]{_PART})*"
_CLITIC = f"{_APOSTROPHE}(?i:[mds]|re|ve|ll)"
_NOT = f"[nN]{_TICK}[tT]"
# Compounds: R2-D2, l'été-d'or; 1.5-a, non-U.S.; and/or; AT&T.
_PARTICLE = f"(?:[dolDOL]{_TICK}{_ALNUM})?"
_JOINED = f"{_PARTICLE}{_ALNUM}+(?:[-_֊‐‑]{_PARTICLE}{_ALNUM}+)*"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])"
_DOTTED = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:{_INITIALS}+\.|[A-Za-z0-9\xad]+))+"
_SIDE = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_SLASHED = rf"{_SIDE}(?:\\?/{_SIDE}){{1,2}}"
_CAPITALS = "[A-Z]+(?:(?:[+]|(?i:&amp;)|&)[A-Z]+)+"
# Numbers.
_MORE = f"(?:[.:,٫٬\xad]{_DIGIT}+)"
_GAP, _DIAL = "[- \xa0]", "[0-9]{2,4}"
_AREA = rf"(?:\([0-9]{{2,3}}\)[ \xa0]?|(?:\+\+?)?(?:{_DIAL}{_GAP})?{_DIAL}{_GAP})"
# Addresses: what they hold, and what they do not end with.
_URL, _PATH = '[^ \t\n"<>|(){}]', '[^ \t\n"<>|()]'
_URL_END = '[^ \t\n"<>|.!?(){},-]'
_HOST = '[^ \t\n"<>|.!?(){},]'
_BARE_HOST = "[^ \t\n\"`'<>|.!?(){},-_$]"  # ,-_ is a range: no digits, no capitals
_USER, _DOMAIN = '[^ \t\n\xa0"<>|(){}]', '[^ \t\n\xa0"<>|(){}.]'
_FILE = rf"{_INSIDE}+(?:\.{_INSIDE}+)*\.{_any_case(_FILES)}"
# Markup.
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_VALUE = f"(?:'[^']*'|\"[^\"]*\"|{_NAME})"
_TAG = f"<(?:[!?][A-Za-z-][^>\n]*|/{_NAME}|{_NAME}(?: +{_NAME}(?: *= *{_VALUE})?)*) */? *>"
_EYE = "[-^x=~<>']"
_QUOTE = "[`‚„‟‘’‛‹›«»“”\x91-\x94]"

_RULES = (
  ("", _TAG),
  ("", "(?i:&(?:amp|lt|gt|quot|nbsp|mdash|ndash|md|apos|ht|tl|ur|lr|qc|ql|qr|odq|cdq);)|&#[0-9]+;"),
  ("", "(?i:-[lr][rsc]b-)"),
  # Two words written as one.
  ("", "((?i:can))(?i:not)|((?i:gon|wan))(?i:na)|((?i:got))(?i:ta)|((?i:lem|gim))(?i:me)"),
  ("", "('[tT])(?i:is|was)"),
  # Words, and clitics after them. The stem of "n't" does not end in n: "cann't" is none.
  ("", f"({_WORD}){_CLITIC}"),
  ("", f"([A-Za-z\xad]*[A-MO-Za-mo-z]){_NOT}"),
  ("", _WORD),
  ("clitic", f"({_CLITIC})[^A-Za-z]"),
  ("clitic", _NOT),
  # Words with an apostrophe of their own: 'n', d', ol', 'em, 'til, '90s; O'Brien, ne'er, Ba'ath.
  ("", f"{_APOSTROPHE}[nN]{_APOSTROPHE}?|(?i:[ldj]|ol|dunkin|somethin){_APOSTROPHE}"),
  ("", _any_case(re.escape(word) for word in WHOLE)),
  ("", f"{_APOSTROPHE}(?i:em|till?|cause|[2-9]0s)"),
  ("", f"[A-HJ-XZn]{_TICK}{_LETTER}{{2,}}|(?i:n?e{_TICK}er|o{_TICK}o|cap{_TICK}n|ma{_TICK}am)"),
  ("", f"{_LETTER}+(?i:[aeiouy]){_TICK}[aeiouA-Z]{_LETTER}*"),
  ("", f"(')[A-Za-z]{_BLACK}"),  # opens a quotation
  ("clitic", _CLITIC),
  ("", f"({_APOSTROPHE}[0-9]{{2}}){_WHITE}"),
  ("", f"([yY]{_APOSTROPHE})(?={_LETTER})"),
  # Addresses.
  ("address", f"(?i:https?)://{_URL}+{_URL_END}"),
  (
    "address",
    rf"(?:(?i:www)\.(?:{_HOST}+\.)+[a-zA-Z]{{2,4}}|(?:{_BARE_HOST}+\.)+(?i:com|net|org|edu))"
    f"(?:/{_PATH}+{_URL_END})?",
  ),
  ("address", rf"(?:<|&lt;)?[a-zA-Z0-9]{_USER}*@(?:{_DOMAIN}+\.)*{_DOMAIN}+(?:>|&gt;)?"),
  ("", f"@[A-Za-z_][A-Za-z_0-9]*|#{_START}+"),
  # Numbers: dates, 1,000.5, 2 1/2, telephones, US$.
  ("", f"{_DIGIT}{{1,2}}[-/]{_DIGIT}{{1,2}}[-/]{_DIGIT}{{2,4}}"),
  ("", f"[-+]?(?:{_DIGIT}+{_MORE}*|{_MORE}+)"),
  ("", rf"(?:{_DIGIT}{{1,4}}{_GAP})?{_DIGIT}{{1,4}}(?:\\?/|⁄){_DIGIT}{{1,4}}"),
  ("", f"{_AREA}[0-9]{{3,4}}{_GAP}?[0-9]{{3,5}}"),
  ("", rf"(?:(?:\+\+?)?{_DIAL}\.)?{_DIAL}\.[0-9]{{3,4}}\.[0-9]{{3,5}}"),
  ("", r"[A-Z]*\$"),
  # Abbreviations.
  (
    "",
    rf"((?:{_any_case(_LAST)}|{_capitalised(_CAPITALISED)}|(?i:p?pt)[ey][sS]?)\.)(?:[\s\S]{{2}})?",
  ),
  ("", rf"(?:{_any_case(_INNER)}|[mM][ft][gG])\."),
  ("", rf"([A-Za-z])\.{_WHITE}+(?:{_capitalised(_STARTERS)}|M[rRsS]\.|{_TAG}){_WHITE}"),
  ("", rf"({_any_case(_BEFORE_NUMBER)}\.){_WHITE}?{_DIGIT}"),
  ("", rf"{_INITIALS}*\."),
  ("", rf"((?i:(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.k|u\.s\.s\.r))){_WHITE}"),
  ("", r"((?i:ph\.d|ed\.d)\.)(?:[\s\S]{2})?"),
  # Compounds; before more marks, a full stop stays with its word.
  ("address", rf"({_FILE})[ \t\n\xa0.?!,]"),
  ("", _JOINED),
  ("", rf"((?:{_WORD}|{_JOINED}|{_DOTTED}|{_CAPITALS})\.)[,;:]"),
  ("", _DOTTED),
  ("", _SLASHED),
  ("", _CAPITALS),
  ("", "(?i:(?:anti|pro)-|s&ls|s&p-500)"),
  ("", r"[cC]\+\+|[cCfF]#"),
  # Faces.
  ("", r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]"),
  ("", rf"{_EYE}_{_EYE}|\({_EYE}[_.]?{_EYE}\)|\([\^x=~<>']-[\^x=~<>'`]\)"),
  # Runs of marks, and single characters.
  ("", r"\*+|(?:\\\*){1,3}|[⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+)|-{5,}|-{2,4}|_+|#+|@+|<<|>>|[?!]+|''"),
  ("", r"\.{3,5}|(?:\.[ \xa0]){2,4}\."),
  ("quote", f"{_QUOTE}{{1,2}}"),
  ("", r"[^ \t\n]"),
)
_COMPILED = tuple((kind, re.compile(rule)) for kind, rule in _RULES)


def longest(plain: str, at: int) -> tuple[int, str]:
  """Where the token that begins at `at` ends, and its kind: "clitic", "address", "quote" or ""."""
  reach, end, best = -1, at + 1, ""
  for kind, rule in _COMPILED:
    match = rule.match(plain, at)
    if match and match.end() > reach:
      reach, best = match.end(), kind
      end = match.end(match.lastindex) if match.lastindex else reach
  return end, best
