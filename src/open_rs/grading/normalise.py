r"""Owns the one spelling that answers and golds are brought to before anything compares them.

The result is LaTeX without decoration: `\dfrac12`, `½` and `\frac{1}{2}` become `\frac{1}{2}`; `\left(` becomes `(`;
units, degrees, dollar signs and thousands separators go; words stay inside `\text{}`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from open_rs.grading.units import strip_units

MAX_LENGTH = 4000  # characters; longer answers are compared as they stand
_MAX_PASSES = 32  # answers need one or two; what hasn't settled by then is no answer and stays as it is
_PLAIN = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "⁄": "/", "∕": "/",
        "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "∗": "*",
        "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "θ": r"\theta ", "λ": r"\lambda ",
        "μ": r"\mu ", "ω": r"\omega ", "φ": r"\phi ", "σ": r"\sigma ", "τ": r"\tau ", "δ": r"\delta ",
        "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "⩽": r"\le ", "⩾": r"\ge ", "≈": r"\approx ",
        "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ", "±": r"\pm ", "∖": r"\setminus ",
        "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
        "°": r"^\circ ", "º": r"^\circ ", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "，": ",", "；": ";",
        "（": "(", "）": ")", "：": ":", "。": ".", "∶": ":", "⟨": "(", "⟩": ")",
        "£": r"\$", "€": r"\$", "¥": r"\$", "₹": r"\$", "⌊": r"\lfloor ",
        "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "\u200b": "", "\ufeff": "", "\u2061": "",
        "\u2062": "", "\u2063": ",",
    }
)  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_VULGAR = re.compile(r"(\d*)\s*([¼½¾⅐-⅞])")

_ATOM = r"(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\\[a-zA-Z]+|[^\s{}\\])"
_DECORATION = re.compile(
    r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|Biggl?|Biggr|middle)(?![a-zA-Z])\s*\.?(?=\s*(?:\\?[\[\](){}|.<>/]|\\[a-zA-Z]|$))"
    r"|\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|bf|rm|it|sf|tt|Large|large|LARGE|huge|Huge|small|hfill|noindent"
    r"|allowbreak|nonumber|boldmath|phantom\{[^{}]*\}|hspace\*?\{[^{}]*\}|vspace\*?\{[^{}]*\}|label\{[^{}]*\}|tag\*?\{[^{}]*\}"
    r"|strut|relax)(?![a-zA-Z])"
)
_ROMAN = re.compile(
    r"(?<=\{)\s*\\rm(?![a-zA-Z])\s*((?:[^{}]|\{[^{}]*\})*)(?=\})|\\rm\s*\{([^{}]*)\}"
)  # {\rm cm}, \rm{cm}
_SPACE = re.compile(r"\\[,;:> ]|\\(?:quad|qquad|thinspace|enspace|medspace|thickspace|space)(?![a-zA-Z])|~|\s+")
_DOLLAR_AMOUNT = re.compile(r"\\\$|(?:\\text\{\s*)?(?:USD|US\\\$)\s*(?=\d)")
_WRAPPERS = re.compile(
    r"\\(?:boxed|fbox|mathbf|boldsymbol|bm|mathit|mathsf|mathtt|mathnormal|mathord|mathop|mathbin|mathrel|underline"
    r"|overrightarrow|vec|displaylines|ensuremath|mathstrut|pmb|emph|hat|cancel)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
)
_COLOURED = re.compile(r"\\(?:textcolor|colorbox|color)\s*(?:\[[^\]]*\])?\{[^{}]*\}")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|texttt|textsc|mathrm|mbox|hbox|operatorname\*?|rm)\s*"
    r"\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_FRACTION = re.compile(r"\\[dtcs]?frac(?![a-zA-Z])\s*" + _ATOM + r"\s*" + _ATOM)
_ROOT = re.compile(r"\\sqrt(?![a-zA-Z])\s*(\[[^\]]*\])?\s*" + _ATOM)
_OVER = re.compile(r"\{([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)\}")
_PLAIN_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)|√\s*\(([^()]*)\)|√\s*(\d+(?:\.\d+)?|[a-zA-Z])")
_THOUSANDS_MARK = re.compile(r"(?<=\d)(?:\{,\}|,?\\!\s*|\{\s\}|\\,|\\ |,\\;|,\\,|,~|~)\s*(?=\d{3}(?!\d))")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,a-zA-Z])\d{1,3}(?: \d{3})+(?![\d ]*\d)")
_DEGREE = (
    r"(?:\s*\{?\s*\}?\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-zA-Z]))|\\deg(?:ree)?(?![a-zA-Z]))"
)
_DEGREES = re.compile(_DEGREE)
_SCIENTIFIC = re.compile(r"(?<![\w.])((?:\d+\.?\d*|\.\d+))[eE]([+-]?\d+)(?![\d.]*[a-zA-Z])")
_POWER_OF_TEN = re.compile(r"(?<=10)\s*\^\s*([+-]?\d+)")
_SIMPLE_SYNONYMS = {
    r"\dots": r"\ldots", r"\cdots": r"\ldots", r"\leq": r"\le", r"\geq": r"\ge",
    r"\leqslant": r"\le", r"\geqslant": r"\ge",
    r"\neq": r"\ne", r"\lt": "<", r"\gt": ">", r"\varnothing": r"\emptyset",
    r"\empty": r"\emptyset", r"\O": r"\emptyset",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\lparen": "(", r"\rparen": ")",
    r"\infin": r"\infty", r"\ast": "*", r"\dbinom": r"\binom", r"\tbinom": r"\binom", r"\choose": r"\choose",
    r"\R": r"\mathbb{R}", r"\Z": r"\mathbb{Z}", r"\N": r"\mathbb{N}", r"\Q": r"\mathbb{Q}", r"\bigcup": r"\cup",
    r"\land": r"\wedge", r"\colon": ":", r"\mid": "|", r"\vert": "|", r"\lvert": "|", r"\rvert": "|", r"\prime": "'",
    r"\langle": "(", r"\rangle": ")",
    r"\lg": r"\log", r"\pounds": "", r"\euro": "",
    r"\varepsilon": r"\epsilon", r"\vartheta": r"\theta", r"\varphi": r"\phi", r"\isin": r"\in", r"\percent": r"\%",
}  # fmt: skip
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_FUNCTION_NAMES = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "arccot",
        "sinh",
        "cosh",
        "tanh",
        "ln",
        "log",
        "exp",
        "max",
        "min",
        "gcd",
        "lcm",
        "det",
        "arg",
        "deg",
        "lim",
        "sup",
        "inf",
    ]
)
_NUMPY = re.compile(r"\b(?:np|numpy|math)\.(\w+)")
_TIME = re.compile(r"(\d{1,2}(?::\d{1,2}){0,2})\s*(?:\\text\{)?\s*([aApP])\.?\s?[mM]\.?\s*\}?\.?")
_TRIGONOMETRIC_DEGREES = re.compile(
    rf"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^(?:\{{\d\}}|\d))?)\s*([({{]?)\s*(\d+(?:\.\d+)?){_DEGREE}\s*[)}}]?"
)
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_COMBINATIONS = re.compile(r"(?<![a-zA-Z\\])C_(?:\{(\d+)\}|(\d))\^(?:\{(\d+)\}|(\d))")
_TRAILING = " .,;:"


@lru_cache(maxsize=1 << 16)
def normalise(answer: str) -> str:
    r"""The canonical spelling of an answer; equal results mean equal answers (also for majority votes).

    Never raises and is idempotent: the steps are repeated until they change nothing. `normalise("\\dfrac12\\text{
    cm}") == "\\frac{1}{2}"`; `normalise("$1{,}234$") == "1234"`; `normalise("033") == "33"`.
    """
    text = answer.strip()
    seen: list[str] = []
    while not _PLAIN.fullmatch(text):
        if len(text) > MAX_LENGTH or len(seen) == _MAX_PASSES:
            return answer.strip()
        if text in seen:
            return min(seen[seen.index(text) :])  # the one member that every member of a cycle leads to
        seen.append(text)
        text = _pass(text)
    return text


def _pass(text: str) -> str:
    for step in _STEPS:
        text = step(text)
    return text.strip()


def _unicode(text: str) -> str:
    if text.isascii():
        return text
    text = _VULGAR.sub(_spell_vulgar, text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+", lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+", lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text.translate(_UNICODE)).translate(_UNICODE)
    return "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in text)


def _spell_vulgar(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[2]).partition("⁄")
    return match[1] + rf"\frac{{{numerator}}}{{{denominator}}}"


def _delimiters(text: str) -> str:
    text = _DOLLAR_AMOUNT.sub("", text.replace(r"\$", r"\$ "))
    text = re.sub(r"\\\(|\\\)|\\\[(?!\d*(?:pt|em))|\\\](?!\w)|\$", " ", text)
    return text.replace("**", "^") if re.search(r"\w\*\*\w", text) else text.replace("**", "")


def _line_breaks(text: str) -> str:
    r"""Row ends of a matrix become `\cr`; elsewhere a doubled backslash is an escape too many or a line break."""
    if r"\begin{" in text:
        return re.sub(r"\\\\(?:\[[^\]]*\])?", r" \\cr ", text)
    return re.sub(r"\\\\(?=[a-zA-Z{}()])", r"\\", text).replace("\\\\", " ")


def _decoration(text: str) -> str:
    text = _THOUSANDS_MARK.sub("", text).replace(r"\!", "")
    text = _DECORATION.sub(" ", _ROMAN.sub(r"\\mathrm{\1\2}", text))
    text = _SPACE.sub(" ", text)
    return _COMMAND.sub(lambda m: _SIMPLE_SYNONYMS.get(m.group(), m.group()), text)


def _wrappers(text: str) -> str:
    text = _COLOURED.sub("", text)
    for _ in range(4):
        unwrapped = _WRAPPERS.sub(r"{\1}", text)
        if unwrapped == text:
            break
        text = unwrapped
    return text


def _words(text: str) -> str:
    return _NUMPY.sub(r"\\\1", _TEXT.sub(_spell_text, text))


def _spell_text(match: re.Match[str]) -> str:
    r"""What `\text{...}` holds: a function, plain mathematics, or words that stay words."""
    inner = match[1].strip()
    if inner in _FUNCTION_NAMES:
        return f"\\{inner} "
    if len(inner) <= 1 or not re.search("[a-zA-Z]{2}", inner):
        return f" {inner} "
    lowered = inner.lower().strip(" ,.")
    if lowered in ("and", "or"):
        return ", "
    return rf" \text{{{' '.join(inner.split())}}} "


def _units(text: str) -> str:
    """Units go while their wrappers still tell them from variables; `5 pm` is no picometre."""
    time = _TIME.fullmatch(text.strip())
    return strip_units(text) if time is None else f"{time[1]} {time[2].lower()}m"


def _degrees(text: str) -> str:
    text = _TRIGONOMETRIC_DEGREES.sub(r"\1(\\frac{\3\\pi}{180})", text)
    text = re.sub(_DEGREE + r"\s*[CF](?![a-zA-Z])", "", text)
    text = _DEGREES.sub("", text)
    text = re.sub(r"\\text\{ ?(?:percent|percentage|pct) ?\}|(?<=\d) ?percent\b", r"\\%", text)
    return text.replace(r"\%", "%").replace("% ", "%")


def _fractions(text: str) -> str:
    text = _OVER.sub(_spell_over, text)
    for pattern, spell in ((_FRACTION, _spell_fraction), (_ROOT, _spell_root)):
        for _ in range(8):
            spelled = pattern.sub(spell, text)
            if spelled == text:
                break
            text = spelled
    return _PLAIN_ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}", text)


def _braced(atom: str) -> str:
    return atom if atom.startswith("{") else "{" + atom + "}"


def _spell_fraction(match: re.Match[str]) -> str:
    return rf"\frac{_braced(match[1])}{_braced(match[2])}"


def _spell_over(match: re.Match[str]) -> str:
    command = r"\frac" if match[2] == "over" else r"\binom"
    return f"{command}{{{match[1].strip()}}}{{{match[3].strip()}}}"


def _spell_root(match: re.Match[str]) -> str:
    degree = match[1] if match[1] and match[1] != "[2]" else ""
    return rf"\sqrt{degree}{_braced(match[2])}"


def _numbers(text: str) -> str:
    text = _REPEATING.sub(_spell_repeating, text)
    text = _COMBINATIONS.sub(_spell_combinations, text)
    text = re.sub(r"(?<=\d) ?[xX] ?(?=10 ?\^)", r"\\cdot ", text)
    text = _SPACED_THOUSANDS.sub(lambda m: m.group().replace(" ", ""), text)
    text = re.sub(r"(?<=\d)e(?=\s+[-+]|[-+]\s)", " e", text)  # `24e - 32` is no power of ten
    text = _SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", text)
    text = _POWER_OF_TEN.sub(r"^{\1}", text)
    text = text.replace(r"\times", r"\cdot")
    text = re.sub(r"(?<![\d.\\a-zA-Z_])(?<!\d,)0+(?=\d)", "", text)
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return re.sub(r"(?<=\d)\.(?!\d)(?=\s*/|\s*$)", "", text)


def _spell_repeating(match: re.Match[str]) -> str:
    whole, fixed, repeated = match[1], match[2], match[3] or match[4]
    top = int(whole + fixed + repeated) - int((whole + fixed) or "0")
    return rf"\frac{{{top}}}{{{'9' * len(repeated) + '0' * len(fixed)}}}"


def _spell_combinations(match: re.Match[str]) -> str:
    total, chosen = match[1] or match[2], match[3] or match[4]
    return rf"\binom{{{total}}}{{{chosen}}}" if int(total) >= int(chosen) else match.group()


def _tidy(text: str) -> str:
    text = re.sub(r"^\s*\\approx", "", " ".join(text.split())).strip(_TRAILING)
    text = re.sub(r"(?<=\d), (?=\d{3}(?!\d))", ";", text)  # `1, 234` is a list, `1,234` may be a number
    text = re.sub(r"\s*([-+*/^=<>,;:(){}\[\]|!])\s*", r"\1", text)
    text = re.sub(r"(?<=\{)\s+|\s+(?=\})", "", text)
    text = re.sub(r"(\\[a-zA-Z]+) (?![a-zA-Z])", r"\1", text)
    return _strip_braces(text.strip(_TRAILING))


def _strip_braces(text: str) -> str:
    """Drop braces that hold the whole text, and those around a single character outside a command's arguments."""
    while text.startswith("{") and text.endswith("}") and _matches_last(text):
        text = text[1:-1].strip(_TRAILING)
    return re.sub(r"(?<![\\a-zA-Z_^}\]\d])\{(\w+)\}", r"\1", text)


def _matches_last(text: str) -> bool:
    depth = 0
    for index, character in enumerate(text):
        if character == "{" and text[index - 1 : index] != "\\":
            depth += 1
        elif character == "}" and text[index - 1] != "\\":
            depth -= 1
            if depth == 0:
                return index == len(text) - 1
    return False


_STEPS = (
    *(_unicode, _line_breaks, _delimiters, _decoration, _wrappers),
    *(_units, _words, _fractions, _degrees, _numbers, _tidy),
)
