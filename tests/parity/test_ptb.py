"""Live against the Java tokeniser that pycocoevalcap brings: random strings made of quirks, and words
with an apostrophe, all of them up to a length."""

import itertools
import pathlib
import random
import shutil
import string
import subprocess

import pytest

from paligemma_jax.metrics import ptb, ptb_rules

pytestmark = pytest.mark.parity

DROPPED = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"} | set(
  ". ? ! , : - -- ... ;".split()
)
WORDS = """
  a man woman dog dogs cat riding surfboard the two on top of with his her people street red
  bus
  Paris London John café naïve façade Zürich niño straße piñata well-known snow-covered
  t-shirt x-ray 3-D mother-in-law
  e-mail St. Mr. Mrs. Dr. No. no. Inc. Co. Ltd. vs. etc. e.g. i.e. a.m. p.m. U.S. U.S.A. U.K.
  D.C. Jr. Sr. Ph.D. Ave. Blvd. Rd. Jan. Feb. Sept. Dec. Mon. Fri. Calif. Mass. Fig. fig.
  approx. ft. in. oz. lb. J.R. A. B. I. x. Prof. Gen. Lt. Sgt. Capt. Gov. Rep. Sen. Rev. Hon.
  Mt. Ft. Corp. Dept. Univ. pp. vol. op.
  cannot gonna gotta wanna lemme gimme dunno 'tis 'twas 'em 'til 'cause 'n' rock'n'roll
  o'clock O'Brien D'Angelo l'eau ma'am y'all ol' cap'n o'er ne'er more'n ain't can't don't
  won't isn't shan't wouldn't've I'm I'll you're they've he'd she's it's let's who's dog's
  dogs' James' girls' Jess's 90's '90s '80s '05 1990s 80s
  don’t it’s dog’s dogs’ ’em “quoted” ‘single’ "quoted" 'single' ``latex'' «fr» ‹fr› „de“ ‚de‘
  5'10" 6' 5" 7″
  $5 $5.00 $1,000 $5m US$20 C$5 HK$100 £5 €20 ¥500 5¢ 20€ ₹50 50% 5.5% .5 0.5 1.5 1,000
  1,234,567 12,34 1/2 3/4 2 1/2 1-1/2 ½ ¼ 1½ 1/2-inch 10:15 10:15am 12:30pm 3pm 10-15 10–15
  1st 2nd 33rd 4x4 5x7 2x 3D 2D R2-D2 747 A380 Boeing-747 F-16 MP3 H2O no.5 #1 #5 number #tag
  #2go @user @ user_name 24/7 9/11 10/10/2010 2010-10-10 12.12.12 555-1234 555-123-4567 (555)
  555-5555 (415) 123 4567 1-800-555-1234 +1 192.168.1.1 1.2.3 100m 5ft 6ft. 5-foot 10-year-old
  20-something -5 +5 5+ ~5 >5 <5 =5 5=5 2+2=4 2*3 x^2 10° 10°C 72°F ±5 × ÷
  and/or his/her w/ w/o s/he a/b/c a/b/c/d either/or AC/DC c/o km/h m/s / \\ a\\b
  http://www.site.com/a?b=c https://x.org/y. www.site.com site.com site.org/path me@site.com
  a.b@c.co.uk file.txt img_001.jpg photo.png
  ... .. .... …  . . . ! !! !!! ? ?! !? ?? , ; : - -- --- – — ― _ __ ___ * ** *** & && + = ~ ^
  | < > << >> -> <- => <= >=
  (a (b) [c] {d} (in parentheses) [brackets] {braces} <tag> </tag> <br/> <a href="x"> :) :-)
  ;) :( :D :P <3 ^_^ -_- o_O XD :/ :'(
  😀 🐶 👍🏽 ❤️ 👨‍👩‍👧 ★ ✓ ♥ → ← • · § ¶ © ® ™ ° † ‡ № ¿ ¡ ¬ ¦ ª º ² ³ µ ß æ ø å Ø œ ŧ ħ 猫 猫が座る
  桌子上。 แมว 고양이 кошка قطة، है। γάτα; ひらがな カタカナ ﬁ Ａ１ \u00a0 \u200b \u200d \u00ad \u3000 \ufeff
  \u0301 e\u0301 n\u0303o
  AT&T R&B B&B M&M's R&D Q&A a&b &amp; &lt; &gt; &quot; &apos; C++ C# F# .NET Node.js Yahoo!
  Yahoo!Inc dog.cat A+ A- B-52 a_b snake_case _x x_ iPhone iPad's eBay McDonald's KFC NYC
  N.Y.C. Wash. L.A. P.S. R.I.P. a.k.a. A.K.A. vs v. s. c. Q. Q: A: Re: St Ste. No
  co-worker's twenty-one re-elect pre- -ish non-U.S. post-9/11 mid-'90s A-B-C 'quoted 'quoted'
  ''two'' `tick` `tick' ' " '' `` ` ´ ′ ″
""".split()
GLUE = [" "] * 14 + """- / . , ' " ; ( & … ) """.split(" ") + ["", "", "  ", "\t", "\u00a0"]
GLUE += [". ", ", ", "; ", ": ", "! ", "? ", " - ", " -- ", ") "]
FORMS = [str] * 16 + [str.upper, str.capitalize, str.capitalize, '"{}"'.format, "'{}'".format]
FORMS += ["({})".format, "{}'s".format]


def _captions(seed, number):
  rng = random.Random(seed)
  return [
    "".join(
      rng.choice(FORMS)(rng.choice(WORDS)) + rng.choice(GLUE) for _ in range(rng.randint(1, 10))
    )
    for _ in range(number)
  ]


def _java(texts, folder):
  """What pycocoevalcap makes of the texts, in one call as it does."""
  package = pytest.importorskip("pycocoevalcap").__path__[0]
  if shutil.which("java") is None:
    pytest.skip("no Java")
  jar = pathlib.Path(package) / "tokenizer" / "stanford-corenlp-3.4.1.jar"
  file = folder / "texts.txt"
  file.write_bytes("\n".join(texts).encode())
  command = ["java", "-Dfile.encoding=UTF-8", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer"]
  command += ["-preserveLines", "-lowerCase", file]
  done = subprocess.run(command, capture_output=True, check=True)
  lines = done.stdout.decode().split("\n")[: len(texts)]
  return [" ".join(w for w in line.rstrip().split(" ") if w not in DROPPED) for line in lines]


def _noise(seed, number):
  rng = random.Random(seed)
  characters = "aabcdeinorstTASN''’..,-/ &    159:;()\"?!@#$%_*+=~éЖ猫\u0301“”—"
  return ["".join(rng.choices(characters, k=rng.randint(1, 25))) for _ in range(number)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [_captions, _noise])
def test_the_java_tokeniser_says_the_same(make, seed, tmp_path):
  texts = make(seed, 5000)
  after = [f"\n{text}\n" for text in texts[1:]] + [""]
  for text, rest, want in zip(texts, after, _java(texts, tmp_path), strict=True):
    assert ptb.tokenize(text, rest) == want, text


SHORT = ["".join(w) for n in (1, 2) for w in itertools.product(string.ascii_lowercase, repeat=n)]
UP_TO_THREE = [*SHORT, *map("".join, itertools.product(string.ascii_lowercase, repeat=3))]
BEGINNINGS = "a c d e j l n o s y li ol cap ma ne ev don wouldn".split()
ENDINGS = "s t d m n a e l em re ve ll er on ry est til mon".split()


@pytest.mark.parametrize(
  "beginnings, endings", [(SHORT, SHORT), (UP_TO_THREE, ENDINGS), (BEGINNINGS, UP_TO_THREE)]
)
def test_words_with_an_apostrophe_are_split_alike(beginnings, endings, tmp_path):
  words = [f"{a}'{b}" for a in beginnings for b in endings]
  pairs = zip(words, _java(words, tmp_path), strict=True)
  assert [(w, want) for w, want in pairs if ptb.tokenize(w) != want] == []


def test_every_word_of_the_lexers_lists_is_kept_alike_in_any_case_and_before_any_mark(tmp_path):
  known = [*ptb_rules.WHOLE, *ptb_rules.ABBREVIATIONS, *ptb_rules.SPLIT, "anti-", "pro-", "s&ls"]
  forms = [f(word) for word in known for f in (str, str.upper, str.capitalize)]
  texts = [
    f"{w}{mark}" for w in forms for mark in ("", "'", ".", ",", "-", " A", ". A", "'s", "5", "x")
  ]
  after = [f"\n{text}\n" for text in texts[1:]] + [""]
  for text, rest, want in zip(texts, after, _java(texts, tmp_path), strict=True):
    assert ptb.tokenize(text, rest) == want, text
