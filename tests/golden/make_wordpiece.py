# ruff: noqa: RUF001
"""Writes wordpiece.json: token ids of the tokenizers library over hostile text, for tokenizers of several settings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from edgeformer.checkpoints.tokenizers import bert_template
from edgeformer.zoo import ZOO
from tests.golden.golden_files import document

ZOO_MODEL = "clinc150-mobilebert"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
RANDOM_LINES = 120

LINES = (
    "",
    " ",
    "turn the lights off",
    "  Leading, and   inner\tand trailing\u00a0spaces \u3000",
    "Ünïcödé naïve café Ångström ﬁne Straße ſharp",
    "U\u0308ni\u0308co\u0308de\u0301 in pieces, a\u0301\u0323 and a\u0323\u0301",
    "İstanbul I\u0307 ıI ΑΣ ΌΔΟΣ Σίσυφος ǅ ǈ ᾈ ᾳ ẞ",
    "ĲSSELMEER ŉ Ǆ \u1e9e \u2126 \u212a \u212b \u01c5",
    "שָׁלוֹם עֲלֵיכֶם مَرْحَبًا بِكُم نَصٌّ",
    "नमस्ते दुनिया ক্ষ த்ரு สวัสดีชาวโลก ကျေးဇူး",
    "한국어 각 각 한글 \u1112\u1161\u11ab \uac01\u11a8",
    "你好，世界！漢字かな交じり文 カタカナ 𠀀𪜀𫝀𫠠𬺰 丽 龜 豈 㐀",
    "Việt Nam ộ ợ ễ ự Đ đ",
    "don't stop-me_now 3.14 50% #1 $5 a+b=c <x> ^_^ `q` ~z |p| C++ C# @me e-mail@x.org",
    "“quoted” ‘single’ «guillemets» „low“ – — ― … ‰ ′ ″ § ¶ † ‡ • ¡ ¿ · ؟ ، । 。 、 「」 ﹏ ＿ ！",
    "€ £ ¥ ¢ ₹ © ® ™ ° ± × ÷ ≠ ≤ ∞ → ← ⇒ √ ∑ ∂",
    "😀👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 ☕️ 1️⃣ ♥ ✓ 🫠",
    "zero\u200bwidth \u200cnon\u200djoiner \u2060word \ufefforder \u00adsoft \u061cmark \u180evowel \u034fgrapheme",
    "nul\u0000 bell\u0007 del\u007f csi\u009b nel\u0085 vt\u000b ff\u000c fs\u001c us\u001f",
    "replacement \ufffd nothing \ufffe \uffff last \U0010ffff",
    "spaces\u1680of\u2000many\u2007kinds\u2028line\u2029paragraph\u202fnarrow\u205fmath\u3000wide\u200balmost",
    "bidi \u202eoverride\u202c \u2066isolate\u2069 \u200emark\u200f private \ue000 \U000f0000 tag \U000e0041",
    "unassigned \u0378 \u0530 \U0001fbcb \u2fe0 new \U00010d50 \u1c89 \ua7cb \U00016ea0 \U0001e4ec",
    "marks \u0300alone \u20dd\u20e3 \u1ab0 \u0488 \u0903 \u093e \U0001d165\U0001d16d \u302e\u302f \ua82c \U00011070",
    "[CLS] inside [SEP] text [MASK]ed [PAD][UNK] [sep] [ SEP ] [SEP",
    "ａｂｃ１２３　Ａ！ ½ ² ③ Ⅷ ﷺ ﬀ ㎏ ㍿",
    "a" * 100,
    "b" * 101,
    "é" * 60 + "e\u0301" * 45,
    "\u0301" * 30,
    "word " * 60,
    "x." * 40,
    "𝐁𝐨𝐥𝐝 𝕬 𝓈𝒸𝓇 ⓐ Ⓐ Ａ ᴬ ᵃ ℵ ℂ",
    "\u05d0\u05b0\u05b1\u05bc\u05c1 \u064b\u0651 \u0f71\u0f72\u0f74\u0f80 \u0e38\u0e48",
    "new line\r\nand\rreturn\n\n",
    "/path/to/file.txt?x=1&y=2#z {json: [1,2]} \\back\\slash",
)
PAIRS = (
    ("how much", "fifteen dollars"),
    ("", "second only"),
    ("first only", ""),
    ("one two three four five six seven eight nine ten eleven", "a b"),
    ("a b", "one two three four five six seven eight nine ten eleven"),
    ("one two three four five six seven eight", "eleven ten nine eight seven six five four"),
    ("çà et là", "[SEP] there"),
)
MAX_LENGTHS = (4, 5, 7, 8, 12, 13)


def files() -> dict[str, bytes]:
    """The golden file by name."""
    lines = [*LINES, *_random_lines()]
    texts = _tokenizers(lines)
    cases = []
    for name, text in texts.items():
        tokenizer = Tokenizer.from_str(text)
        cases += [_case(name, tokenizer, 64, line) for line in lines]
        cases += [_case(name, tokenizer, size, *pair) for size in MAX_LENGTHS for pair in PAIRS]
        cases += [_case(name, tokenizer, size, first) for size in MAX_LENGTHS for first, _ in PAIRS]
    source = f"edgeformer/zoo/{ZOO_MODEL}/tokenizer.json"
    return {
        "wordpiece.json": document(f"tokenizers {tokenizers.__version__}", cases, tokenizers=texts | {"zoo": source})
    }


def _case(name: str, tokenizer: Tokenizer, size: int, text: str, pair: str | None = None) -> dict[str, Any]:
    tokenizer.no_padding()
    tokenizer.enable_truncation(size, strategy="longest_first")
    found = tokenizer.encode(text, pair)
    return {
        "tokenizer": name,
        "max": size,
        "text": text,
        "pair": pair,
        "ids": found.ids,
        "types": found.type_ids,
        "truncated": bool(found.overflowing),
    }


def _tokenizers(lines: list[str]) -> dict[str, str]:
    """Tokenizer files by name; the small ones know each character that they can meet, so that nothing is hidden."""
    framed = bert_template(("[CLS]", 2), ("[SEP]", 3))
    bert = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    normalizer = normalizers.BertNormalizer
    settings = {
        "uncased": (normalizer(), framed, _special()),
        "cased": (normalizer(lowercase=False), bert, _special()),
        "accents": (normalizer(strip_accents=False), framed, _special()),
        "stripped": (normalizer(lowercase=False, strip_accents=True, handle_chinese_chars=False), bert, []),
        "unclean": (normalizer(clean_text=False), framed, _special()),
        "added": (normalizer(), framed, [*_special(), *_words()]),
    }
    made = {"zoo": (ZOO[ZOO_MODEL].folder / "tokenizer.json").read_text(encoding="utf-8")}
    return made | {name: _tokenizer(lines, *setting) for name, setting in settings.items()}


def _tokenizer(lines: list[str], normalizer: Any, processor: Any, added: list[AddedToken]) -> str:
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = [word for line in lines for word, _ in split(normalizer.normalize_str(line))]
    starts = dict.fromkeys([*LETTERS, *(word[0] for word in words)])
    inner = dict.fromkeys([*LETTERS, *(character for word in words for character in word[1:])])
    vocabulary = [*SPECIAL, "the", "##ed", "##ing", "light", "##s", *starts, *(f"##{letter}" for letter in inner)]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(dict.fromkeys(vocabulary))}, unk_token="[UNK]"))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processor
    if added:
        made.add_tokens(added)
    return str(made.to_str())


def _special() -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in SPECIAL]


def _words() -> list[AddedToken]:
    """Added tokens that take the spaces around them, that are found after normalization, and that overlap."""
    return [
        AddedToken("lights", normalized=True),
        AddedToken("Caf\u00e9", normalized=True),
        AddedToken("stop-me", normalized=False, lstrip=True),
        AddedToken("and", normalized=False, rstrip=True),
        AddedToken("inside", normalized=True, lstrip=True, rstrip=True),
        AddedToken("and trailing", normalized=False),
        AddedToken("\u4f60\u597d", normalized=False),
    ]


POOLS = (
    "abcdefgh ABCDEFGH 0123456789",
    " \t\n\u00a0\u2003\u3000\u200b",
    ".,;:!?'\"()[]{}-_/\\@#$%^&*+=<>|~`",
    "\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u00ab\u00bb\u00a1\u00bf\u3001\u3002\uff0c\u060c",
    "àéîõüçñøåßæœÀÉÎÕÜÇÑØÅŒÆŁłŐőŞşİı",
    "\u0300\u0301\u0302\u0303\u0308\u030a\u0323\u0327\u0328\u0338\u0345\u035c\u0483\u05b0\u064b\u093c\u094d\u1ab0\u20d7\u3099",
    "αβγδεΑΒΓΔΕΣςσάέΐΰἀᾳЖжЙйЁёЂђԱա",
    "你好世界漢字㐀\U00020000\U0002b820\uf900かなカナ한국어각",
    "שלוםمرحباनमस्तेสวัสดี",
    "\U0001f600\U0001f44d\U0001f3fd\u200d\ufe0f\u2764\U0001f1eb\U0001f1f7",
    "\u0000\u0001\u001f\u007f\u0085\u00ad\u200c\u200e\u202e\u2028\ufeff\ufffd\ue000\U000e0001",
)


def _random_lines() -> Iterator[str]:
    generator = random.Random(1)
    for index in range(RANDOM_LINES):
        if index % 4 == 3:  # anything at all
            codes = [
                generator.randrange(0x20, generator.choice((0x3000, 0x10000, 0x20000, 0x110000))) for _ in range(10)
            ]
            yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
        else:
            pools = generator.sample(POOLS, 3)
            yield "".join(generator.choice(generator.choice(pools)) for _ in range(20))
