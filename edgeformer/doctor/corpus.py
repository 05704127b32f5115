"""Lines of text on which tokenizers are compared: scripts, marks, controls and what people paste.

All characters are of Unicode 9 or older, so that libraries with tables of different age agree on them. No word in
capitals ends with a sigma, and no code point is unassigned: there the original BERT, whose Python knows the end of a
word and drops what is unassigned, and the `tokenizers` library have always differed.
"""

from __future__ import annotations

LINES: tuple[str, ...] = (
    "",
    " ",
    "turn the lights off",
    "  leading,   inner\tand trailing spaces  ",
    "How much is 3.14 * 50 % of $1,299.99? #1 @home a_b c-d e/f",
    "don't can't it's we'll I'm they've o'clock",
    "UPPER Title camelCase SNAKE_CASE kebab-case v1.2.3-rc4",
    "https://example.org/path?q=1&r=%20#top name@example.org C:\\temp\\x",
    "na\u00efve caf\u00e9 d\u00e9j\u00e0 vu \u00dcn\u00efc\u00f6d\u00e9 \u00c5ngstr\u00f6m",
    "nai\u0308ve cafe\u0301 U\u0308ni\u0308co\u0308de\u0301 a\u0301\u0323 a\u0323\u0301",
    "Stra\u00dfe \u0130stanbul \u0131stanbul \ufb01ne \ufb00ects \u01c5 \u1e9e",
    "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u039f\u0394\u039f\u0399 \u03ac\u03bb\u03c6\u03b1",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0401\u043b\u043a\u0430 \u0439 \u0438\u0306",
    "\u05e9\u05dc\u05d5\u05dd \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u0661\u0662\u0663",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0995\u09cd\u09b7 \u0ba4\u0bcd\u0bb0\u0bc1",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u1780\u1798\u17d2\u1796\u17bb\u1787\u17b6 \u1019\u103c\u1014\u103a\u1019\u102c",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 hello\u4e16\u754cworld \u3400 \U00020000",
    "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587 \u30ab\u30bf\u30ab\u30ca \uff76\uff80\uff76\uff85",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u116e\u11a8",
    "\U0001f600\U0001f44d\U0001f3fd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2615\ufe0f 1\ufe0f\u20e3",
    "\u201cquoted\u201d \u2018single\u2019 \u00abguillemets\u00bb \u2013 \u2014 \u2026 \u2030 \u00bf \u00a1",
    "\u20ac \u00a3 \u00a5 \u00a9 \u00ae \u2122 \u00b0 \u00b1 \u00d7 \u00f7 \u2260 \u221e \u2192 \u2713",
    "\uff21\uff22\uff23\uff11\uff12\uff13 \u00bd \u00b2 \u2462 \u2167 \u212b \u2126",
    "zero\u200bwidth non\u200cjoiner jo\u200diner soft\u00adhyphen \u2060word \ufefforder",
    "nul\u0000 bell\u0007 escape\u001b delete\u007f next\u0085 line\u2028 paragraph\u2029",
    "\u202eright to left\u202c \u2066isolate\u2069 \u200emark\u200f",
    "spaces\u00a0of\u2007many\u2009kinds\u202fand\u3000widths\u1680here",
    "line\nbreaks\r\nand\ttabs\x0b\x0c",
    "private \ue000 replacement \ufffd",
    "[CLS] inside [SEP] text [MASK]ed [PAD][UNK] [sep] <|endoftext|>",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 100,
    "b" * 101,
    "e\u0301" * 60,
    "\u0301\u0302 marks first",
    "!?...---___***" * 4,
    "the same words " * 40,
)

LONE_SURROGATE = "half a pair \ud83d here"
"""What no tokenizer can take: it has no UTF-8, and an app must get an error and not another text."""
