r"""Owns the spelling of a formula for its readers: variables become `v_{name}`, decimals fractions.

Math-Verify lowers the case of symbols (`M/m` is 1 to it), fails on `\lambda_{\text{red}}` and
reads `\sin 2t` as sin(2).
"""

from __future__ import annotations

import re

_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell mho odot infin nabla aleph"
)
_GREEK = _GREEK_NAMES.split()
_FUNCTIONS_NAMES = "arcsin arccos arctan arccot sinh cosh tanh sin cos tan cot sec csc ln log exp lg"
_FUNCTIONS = _FUNCTIONS_NAMES.split()
_ACCENTS = [
    *("ddot", "dot", "vec", "bar", "hat", "tilde", "overline", "overrightarrow", "widehat"),
    *("mathcal", "mathscr", "mathfrak"),
]
_NAMING = rf"(?:(?:{'|'.join(_GREEK)})(?![a-zA-Z])|text\{{|(?:{'|'.join(_ACCENTS)})\s*\{{)"  # after the backslash
_COMMAND = (
    r"\\(?:mathbb|begin|end)\{\w+\}"
    rf"|\\(?!{_NAMING})[a-zA-Z]+(?:_(?:\{{[^{{}}]*\}}|\w))?"  # \log_{2} keeps its base
)
_BASE = rf"(?:\\(?:{'|'.join(_GREEK)})(?![a-zA-Z])|\\(?:text|{'|'.join(_ACCENTS)})\s*\{{[^{{}}]*\}}|(?<!\\)[a-zA-Z])"
_SUBSCRIPT = r"(?:_(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\[a-zA-Z]+|\w))?"
_PRIMES = r"(?:'+|\^\{'+\})?"
_AT_NUMBER = r"(?:\(\d+\))?"  # I(0) is a value, not a product
_VARIABLE = re.compile(rf"(?P<command>{_COMMAND})|{_BASE}{_SUBSCRIPT}{_PRIMES}{_AT_NUMBER}")
_DECIMAL = re.compile(r"\d+\.\d+")
_ARGUMENT = (
    r"((?:\d+(?:\.\d+)?|\\frac\{[^{}]*\}\{[^{}]*\}|v_\{\w+\}|\\pi(?![a-zA-Z])|[ei](?![a-zA-Z])|\^\{[^{}]*\}|\^\d|\s)+)"
)
_APPLIED = re.compile(
    rf"(\\(?:{'|'.join(_FUNCTIONS)})(?:_(?:\{{[^{{}}]*\}}|\d))?(?:\^\{{[^{{}}]*\}}|\^\d)?)\s*(?=[^\s({{^_]){_ARGUMENT}"
)
_EXPONENTIAL = re.compile(r"\\exp(?=\s*[({])")
_CONSTANTS = frozenset({"e", "i"})


def spell_variables(text: str) -> str:
    r"""A normalised formula in Math-Verify's terms. `spell_variables("M/m") == "v_{upm}/v_{m}"`."""
    text = _EXPONENTIAL.sub("e^", text)
    text = re.sub(r"e\^\(((?:[^()]|\([^()]*\))*)\)", r"e^{\1}", text)
    text = _VARIABLE.sub(_spell, text)
    text = re.sub(r"(v_\{\w+\})(?=[(\[])", r"\1\\cdot ", text)  # f(x) as a product, on both sides alike
    text = _DECIMAL.sub(_as_fraction, text)
    return _APPLIED.sub(r"\1(\2)", text)


def _spell(match: re.Match[str]) -> str:
    found = match.group()
    if match["command"] or found in _CONSTANTS:
        return found
    found = re.sub(r"\\text\{([^{}]*)\}", r"\1", found)
    letters = re.sub(r"[A-Z]", lambda m: "up" + m.group().lower(), found.replace("'", "prime"))
    name = re.sub(r"[^a-zA-Z0-9]", "", letters.replace("_", "sub"))
    return f"v_{{{name}}}" if name else " "


def _as_fraction(match: re.Match[str]) -> str:
    whole, _, decimals = match.group().partition(".")
    return rf"\frac{{{int(whole + decimals)}}}{{{10 ** len(decimals)}}}"
