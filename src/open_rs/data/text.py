"""How a problem's text is compared: one normal form, its tokens, and 64-bit hashes of its n-grams.

Two spellings of one problem (LaTeX or Unicode, `\\dfrac` or `\\frac`, with or without `$`, any white space, any case)
have the same tokens. Digits stay together, so a changed number is a changed token.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

_DROPPED_BLOCK = re.compile(
    r"\[asy\].*?(?:\[/asy\]|$)|!\[[^\]]{0,200}\]\([^)]{0,500}\)|<image[^>]{0,200}>|https?://\S+",
    re.DOTALL | re.IGNORECASE,
)
_GROUPED_DIGITS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!,\\!)(?=\d{3}(?!\d))")
_PACKED_FRACTION = re.compile(r"\\([dt]?frac)\s*(\d)\s*(\d)")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}(?:\{[lcr| ]*\})?")
_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")
_MATHS = re.compile(r"\$(?!\d+(?:\.\d+)?,?\s+[a-z]{2,})[^$]+\$")  # and not `$5 for one, $9 for two`
_POINTS = re.compile(r"(?<![\\A-Za-z])[A-Z]{2,6}(?![A-Za-z])")
_PRODUCT = re.compile(r"\\(?:text|mbox|textbf|mathrm|operatorname)\s*\{[^}]*\}|\\?[A-Za-z]+")
_LOWER_WORD = re.compile(r"(?<![\\A-Za-z])[a-z]{3,}")
_TOKEN = re.compile(r"\\?[^\W\d_]+|\d+(?:\.\d+)?|[^\w\s]|_")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

SYMBOLS = {
    "−": "-", "–": " - ", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "\\div ", "≤": "\\leq ", "≥": "\\geq ",
    "≠": "\\neq ", "√": "\\sqrt ", "π": "\\pi ", "∞": "\\infty ", "∠": "\\angle ", "△": "\\triangle ", "°": "\\circ ",
    "⊥": "\\perp ", "∥": "\\parallel ", "∈": "\\in ", "…": "...", "⁄": "/", "’": "'", "‘": "'",
}  # fmt: skip
"""Unicode mathematics and the LaTeX it stands for."""

_COMPATIBLE = str.maketrans(SYMBOLS)

_MARKS = frozenset("${}\\[].,;:?'\"`~&#@_")
_LAYOUT = (
    "left right displaystyle textstyle text textbf textit mathrm mathbf mathit mbox operatorname big bigl bigr quad "
    "qquad hspace vspace limits item overline rm bf it"
)
_NOISE = _MARKS | {f"\\{name}" for name in _LAYOUT.split()}
_SAME = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\cdot": "\\times",
    "*": "\\times",
    "\\ge": "\\geq",
    "\\le": "\\leq",
    "\\leqslant": "\\leq",
    "\\geqslant": "\\geq",
    "\\lt": "<",
    "\\gt": ">",
    "\\ne": "\\neq",
    "\\ldots": "...",
    "\\dots": "...",
    "\\cdots": "...",
    "\\degree": "\\circ",
}


def collapse(text: str) -> str:
    """Return `text` with every run of white space as one blank: the form in which exact repeats are counted."""
    return " ".join(text.split())


def _split_products(maths: re.Match[str]) -> str:
    """Write `xyz` and `x y z` alike inside a formula, and leave commands and `\\text{...}` whole."""
    return _PRODUCT.sub(lambda run: run[0] if run[0][0] == "\\" else " ".join(run[0]), maths[0])


def tokens(text: str) -> list[str]:
    """Return the words, numbers and operators of `text`, without what is only spelling.

    `tokens("Find $\\\\dfrac{1}{2}x$.") == ["find", "frac", "1", "2", "x"]`
    """
    text = unicodedata.normalize("NFKC", text.translate(_COMPATIBLE)) if not text.isascii() else text
    text = _DELIMITER.sub("$", text)
    text = _DROPPED_BLOCK.sub(" ", text)
    text = _ENVIRONMENT.sub(" ", text)
    text = _GROUPED_DIGITS.sub("", text)
    text = _PACKED_FRACTION.sub(r"\\\1 \2 \3", text)
    text = _MATHS.sub(_split_products, text)
    if _LOWER_WORD.search(text):  # a text all in capitals names no points by them
        text = _POINTS.sub(lambda run: " ".join(run[0]), text)
    found = [str(_SAME.get(token, token)) for token in _TOKEN.findall(text.lower())]
    return [token.lstrip("\\") for token in found if token not in _NOISE]


@functools.lru_cache(maxsize=1 << 20)
def _token_hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode(errors="replace"), digest_size=8).digest(), "little")


def ngram_hashes(words: Sequence[str], n: int) -> np.ndarray:
    """Return the hash of every run of `n` tokens, in order: uint64 [max(len(words) - n + 1, 0)]."""
    if len(words) < n:
        return np.empty(0, np.uint64)
    hashes = np.fromiter(map(_token_hash, words), np.uint64, len(words))
    length = len(words) - n + 1
    rolled = hashes[:length].copy()
    for offset in range(1, n):
        rolled *= _MULTIPLIER
        rolled += hashes[offset : offset + length]
    return rolled ^ (rolled >> np.uint64(29))


def numbers(words: list[str]) -> tuple[str, ...]:
    """Return the number tokens in order, without leading zeros: what tells two uses of one template apart."""
    return tuple(word.lstrip("0") or "0" for word in words if word[0].isdigit())
