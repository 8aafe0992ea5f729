"""Owns which share of a text is in a language: by script, and by function words within a script."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from open_rs.types import UserError

_NOT_TEXT = re.compile(
    r"```.*?(?:```|\Z)|\$\$.*?\$\$|\$[^$\n]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\begin\{(\w+\*?)\}.*?\\end\{\1\}"
    r"|</?\w+>|\\[a-zA-Z]+(?:\{[^{}]*\})*|https?://\S+",
    re.DOTALL,
)
_SENTENCE = re.compile(r"[^.!?;:\n。！？；]+")
_MIN_FUNCTION_WORDS = 2  # of a foreign language, before a sentence counts as foreign


def share_of_text_in(text: str, language: str) -> float:
    """The share of words in `language`, 0..1; 1 where there are no words. Raises `UserError` for an unknown language.

    `share_of_text_in("So x is 4. 所以", "en")` is 3 words of 5. A single letter is a symbol, not a word.
    """
    if language not in _SCRIPTS:
        raise UserError(f"language: `{language}` is not known; use one of {', '.join(sorted(_SCRIPTS))}")
    inside = total = 0
    for sentence in _SENTENCE.findall(_NOT_TEXT.sub(" ", text)):
        words = _words(sentence)
        total += len(words)
        if not _is_foreign(words, language):
            inside += sum(_script(word) in _SCRIPTS[language] for word in words)
    return inside / total if total else 1.0


def _words(sentence: str) -> list[str]:
    """Runs of letters of one script; an ideograph or kana is a word by itself."""
    words: list[str] = []
    current = ""
    for character in sentence + " ":
        joins = unicodedata.category(character)[0] in "LM" or (character in "'’" and current != "")
        ideograph = joins and _script(character) in _SYLLABIC
        if current and (not joins or ideograph):
            words.append(current)
            current = ""
        if ideograph:
            words.append(character)
        elif joins:
            current += character
    return [word for word in words if len(word) > 1 or _script(word) in _SYLLABIC]


@lru_cache(maxsize=1 << 16)
def _script(word: str) -> str:
    return unicodedata.name(word[0], "UNKNOWN").split(maxsplit=1)[0].split("-", 1)[0]


def _is_foreign(words: list[str], language: str) -> bool:
    """Whether a sentence's function words speak for another language of the same script."""
    if language not in _FUNCTION_WORDS:
        return False
    lowered = [word.lower() for word in words]
    counts = {name: sum(word in known for word in lowered) for name, known in _FUNCTION_WORDS.items()}
    own = counts.pop(language)
    return max(counts.values()) >= max(_MIN_FUNCTION_WORDS, own + 1)


_SYLLABIC = frozenset({"CJK", "HIRAGANA", "KATAKANA"})
_SCRIPTS = {
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl", "vi", "pl", "tr", "id"), frozenset({"LATIN"})),
    "zh": frozenset({"CJK"}),
    "ja": frozenset({"CJK", "HIRAGANA", "KATAKANA"}),
    "ko": frozenset({"HANGUL"}),
    **dict.fromkeys(("ru", "uk", "bg"), frozenset({"CYRILLIC"})),
    "ar": frozenset({"ARABIC"}),
    "fa": frozenset({"ARABIC"}),
    "he": frozenset({"HEBREW"}),
    "hi": frozenset({"DEVANAGARI"}),
    "th": frozenset({"THAI"}),
    "el": frozenset({"GREEK"}),
}
_WORD_LISTS = {
    "en": ("the of and to in is that it for as with are this be we can so have by not from then which there"),
    "de": ("der die das und ist nicht wir ein eine den dem mit auf für von sind also daher dann wird zu"),
    "fr": ("le la les des et est une dans que nous donc pour avec sur sont pas cette alors ce du"),
    "es": ("el los las de y es una que en por con para se del como entonces no son esta lo"),
    "it": ("il gli di e che una per con sono della non questo quindi nel dei allora si è"),
    "pt": ("o os as de e um uma que em para com não são do da então por como dos"),
}
_FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _WORD_LISTS.items()}
