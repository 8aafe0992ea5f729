r"""Owns which symbols and words after a value are units. Policy: a unit is dropped from answer and gold alike.

A chain goes as a whole: `\mathrm{~kg} \cdot \mathrm{m} / \mathrm{s}`, `\frac{\text{m}}{\text{s}^2}`, `erg s^{-1}`.
Case matters in symbols. What could be variables (`m`, `N/m`, `nm`, `\mu m`) is a unit inside `\text{}` or `\mathrm{}`
after a number, and elsewhere only where that product would be unusual: after a plain number and a space.

A text is read as a string of classes, one character a token, and the grammar of units is a pattern over classes.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Symbols and the prefixes that they take; u is micro. Left out are symbols that are first of all names of segments or
# products of variables: MN, PA, ab, pb.
_PREFIXED = {
    "m": "f p n u m c d k M G", "s": "f p n u m", "g": "p n u m k", "A": "p n u m k", "K": "n u m k",
    "mol": "p n u m k", "Hz": "m k M G T", "N": "p n u m k G", "Pa": "m h k M G", "J": "p n u m k M G T",
    "W": "p n u m k M G T", "C": "p n u m", "V": "n u m k M G", "F": "p n u m", "S": "n u m", "T": "n u m",
    "H": "n u m", "Wb": "m", "L": "n u m c d k", "l": "u m c d", "lm": "", "lx": "k", "Bq": "k M G", "Gy": "u m",
    "Sv": "u m", "eV": "m k M G T P", "M": "n u m", "G": "u m k", "h": "", "u": "", "D": "", "t": "", "cd": "m",
    "pc": "k M G", "yr": "k M G", "Jy": "u m k M", "bar": "u m k", "cal": "k M", "kat": "n u m", "Wh": "m k M G T",
    "Ah": "m", "bit": "k M G", "bps": "k M G", "Torr": "m", "VA": "k M", "ohm": "m k M", "Ω": "m k M G",
}  # fmt: skip
_UNPREFIXED = """
AU au ly lyr erg ergs dyn dyne dynes amu Da kDa atm psi torr mmHg cmHg Oe rad mrad sr deg arcsec arcmin mas min hr hrs
sec mins secs yrs ft in yd mi lb lbs lbf kgf oz qt gal pt pts mph kmph kph rpm rps fps Nm kNm Ns Js Pas cc ppm ppb dB
dBm rev ha sq cu Btu BTU hp cps USD EUR GBP RMB CNY Rs cts kB KB MB GB TB Kg KG Km KM CM ML Hr ev kev KeV Kev mev gev
hz khz mhz kj kpa KPa dam hm Å
pcs kmh sqm wk wks mo mos tbsp tsp gm gms fl JPY INR CHF AUD CAD HKD dpi cP nmi kn kt kts Ci rem mrem
"""
# Units wherever they end an answer, wrapped or not: nobody writes these products of variables.
_CERTAIN_SYMBOLS = """
km cm mm kg mL kJ mol Hz kHz MHz GHz eV keV MeV GeV kcal cal amu atm kPa Gyr Myr mph kmph kph rpm usd USD hrs mins secs
sec hr min yr yrs lbs erg ergs degs rad
"""
_OFTEN_VARIABLES = frozenset("DGMltu")  # alone, units only where a space sets them apart from the number
_ONLY_WRAPPED_SYMBOLS = "cd in ha pt au hm deg cu ev mo fl gm kn kt cP mi VA Km KM CM ML"
_SINGULAR_WORDS = """
degree radian dollar cent euro pound rupee meter metre centimeter centimetre millimeter millimetre micrometer nanometer
kilometer kilometre decimeter yard mile angstrom micron parsec lightyear arcsecond arcminute second minute hour
day week month year gram kilogram milligram ounce ton tonne mole liter litre milliliter gallon cup pint quart unit point
person student boy girl player team member ball marble coin apple orange book page card ticket seat step way time digit
number solution pair triple integer root value term joule kilojoule watt kilowatt volt amp ampere ohm newton kelvin
pascal coulomb farad tesla electronvolt calorie byte bit bushel photon atom molecule particle electron magnitude pulse
micrometre nanometre picometer picometre femtometer millisecond microsecond nanosecond microgram nanogram kilohertz
megahertz gigahertz kilovolt millivolt milliampere kilopascal megapascal kiloparsec megaparsec knot lumen candela
becquerel sievert weber siemens steradian decibel tablespoon teaspoon decade acre hectare revolution piece
dog cat car triangle rectangle side edge face cube block tree game vote bag box beam
"""
_OTHER_WORDS = """
yuan yen inch inches boxes foot feet people men women children hertz celsius fahrenheit gauss henry henries
arcsec arcsecs square cubic sq vertices mice sheep fish
"""

_COMMAND = r"\\(?:text|textbf|textit|textrm|textnormal|textsf|mathrm|mbox|hbox|operatorname\*?)\s*"
_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)"
    r"|(?P<power>\s*\^\s*(?:\{\s*[-+]?\s*\d(?:\s*/\s*\d)?\s*\}|[-+]?\d(?!\d))"
    r"|(?<=[A-Za-zΩÅ}])(?:[23]|-[1-4])(?!\d))"
    rf"|(?P<degree>\s*(?:\{{\s*\}}\s*)?\^\s*(?:\{{\s*\\circ\s*\}}|\\circ(?![a-zA-Z]))\s*"
    rf"(?:{_COMMAND}\{{\s*[CFK]\s*\)?\s*\}}|[CFK](?![a-zA-Z])|(?=/)))"
    rf"|(?P<solar>(?:[MLR]|{_COMMAND}\{{\s*[MLR]\s*\}})\s*_\s*(?:\{{\s*\\(?:odot|oplus)\s*\}}|\\(?:odot|oplus)(?![a-zA-Z])))"
    rf"|(?P<certain>{_COMMAND}\{{\s*[mkMG]\s*\}}\s*\\(?:Omega|ohm)(?![a-zA-Z])|\\AA(?![a-zA-Z])"
    r"|\\mathring\s*\{\s*(?:\\mathrm\s*\{\s*A\s*\}|A)\s*\}|(?<![a-zA-Z\\])(?:m/s|(?i:light-years?|electron-volts?))(?![a-zA-Z]))"
    r"|(?P<ohm>(?:(?<![a-zA-Z\\])[kMGm]\s*)?\\(?:Omega|ohm)(?![a-zA-Z]))|(?P<micro>\\mu(?![a-zA-Z]))"
    rf"|(?P<end>[,;]|{_COMMAND}\{{[\s,]*or[\s,]*\}})"
    rf"|(?P<joint>\\(?:cdot|times)(?![a-zA-Z])|{_COMMAND}\{{\s*\}}|[\s/*.-])"
    rf"|(?P<wrapper>{_COMMAND}\{{)|(?P<fraction>\\[dt]?frac\s*(?=\{{))"
    r"|(?P<letters>[A-Za-zΩÅ]+)|(?P<open_brace>\{)|(?P<close_brace>\})|(?P<open>[(\[])|(?P<close>[)\]]|\\\})"
    r"|\\[a-zA-Z]+|\\.|.",
    re.DOTALL,
)
_CLASS = {
    "power": "p", "degree": "c", "certain": "u", "solar": "o", "ohm": "o", "micro": "m", "end": "e", "joint": "j",
    "wrapper": "w", "fraction": "f", "open_brace": "{", "close_brace": "}", "open": "(", "close": ")",
}  # fmt: skip
# Classes of words: u certain, d doubtful, s a single letter, v a unit only in \text{} or \mathrm{}.
_ATOM = "(?:(?:(?:mj*)?[usdvo]|c)p?)"
_ATOMS = f"j*{_ATOM}(?:j*{_ATOM})*+j*"
_BRACKETED = rf"\({_ATOMS}\)p?"
_FRACTION = rf"f\{{(?:j*1j*|{_ATOMS})\}}j*\{{{_ATOMS}\}}"
_WHOLE_WRAPPER = rf"(?:mj*|wj*mj*\}}j*)?wj*(?:{_ATOM}|{_BRACKETED}|{_FRACTION})(?:j*(?:{_ATOM}|{_BRACKETED}))*+j*\}}p?"
_HALF_A_BRACKET = rf"w[j(]*{_ATOM}(?:[j()]*{_ATOM})*+[j)]*\}}p?"  # \text{J/(kg}\cdot\text{K)}
_CERTAIN = f"(?:{_WHOLE_WRAPPER}|{_HALF_A_BRACKET}|[uc]p?)"
_ANY = f"(?:{_CERTAIN}|{_ATOM})"
_CERTAIN_CHAIN = f"j*{_CERTAIN}(?:j*{_ANY})*+j*"
_CHAIN = f"j*{_ANY}(?:j*{_ANY})*+j*"
_FIRST = (
    rf"(?:{_CERTAIN}|\{{{_CERTAIN_CHAIN}\}}p?|\({_CERTAIN_CHAIN}\)p?"
    rf"|f\{{{_CERTAIN_CHAIN}\}}j*\{{{_CHAIN}\}}p?|f\{{(?:j*1j*|{_CHAIN})\}}j*\{{{_CERTAIN_CHAIN}\}}p?)"
)
_UNITS = re.compile(
    rf"(?P<lead>j*)(?P<chain>(?:{_FIRST}|(?P<doubtful>(?:mj*)?[sdo]p?))(?:j*(?:{_FIRST}|{_ANY}))*+)j*(?=e|\)*j*$)"
)
_MAYBE = re.compile(r"(?<![\\A-Za-z])[A-Za-zΩÅ]|\\(?:AA|Omega|ohm|circ)(?![a-zA-Z])")  # else there is no unit
_SIUNITX = re.compile(r"\\(?:SI|qty)\s*(?:\[[^\]]*\]\s*)?\{([^{}]*)\}\s*\{[^{}]*\}|\s*\\(?:si|unit)\s*\{[^{}]*\}")
_WRAPPED_QUANTITY = re.compile(rf"^\s*{_COMMAND}\{{\s*([-+]?\d[\d.,]*)(\s+[^{{}}]*)\}}\s*$")  # \text{5 cm}
_SET_APART = re.compile(rf"{_COMMAND}\{{\s")  # \text{ N}: nobody sets a variable apart like this
_LEAD = re.compile(rf"(?:\s|{_COMMAND}\{{\s*\}})*(?:/|\\cdot)?\s*")
_ENDS_A_VALUE = re.compile(r"[0-9A-Za-z}).!%']")
_KNOWN_COMPOUND = re.compile(  # of single letters, not wrapped
    r"(?:[mLCJgAVKT]/(?:s|min|h)|[NJWVAC]/m|[WJ]/K|N/C|[Jg]/(?:g|L)|V/A)(?![a-zA-Z])"
    r"|[mNJWVg]\s+(?:m|s|K)\s*\^\s*\{?\s*-\s*[1-4]|(?:N|J|V|A|W)\s*(?:\\cdot|\*)\s*(?:m|s|h|A)(?![a-zA-Z])"
    r"|(?:J s|N s|N m)(?![a-zA-Z])"
)
_SURE = re.compile("j*(?:m?j*w|[uc])")
_OVER_A_UNIT = re.compile("sp?jj*(?:[udw(f{])")
_TEN = r"10\s*\^\s*(?:\{\s*[-+]?\d+\s*\}|[-+]?\d+)"
_PLAIN_NUMBER = re.compile(rf"\s*[-+]?\s*(?:\d[\d.,]*(?:[eE][-+]?\d+|\s*(?:\\times|\\cdot|[xX*])\s*{_TEN})?|{_TEN})\s*")
_NUMERIC_COMMAND = re.compile(
    r"\\(?:pi|[dtc]?frac|sqrt|cdot|times|pm|mp|sin|cos|tan|ln|log|exp|div|overline|circ|ldots)(?![a-zA-Z])"
)
_RELATION = re.compile(r"[=<>,;]|\\(?:approx|simeq|sim|le|leq|ge|geq)(?![a-zA-Z])|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])")


def strip_units(text: str) -> str:
    r"""An answer without its unit, or units where it is a list. `strip_units(r"5 \text{ m}/\text{s}^2") == "5"`."""
    text = _WRAPPED_QUANTITY.sub(r"\1\\text{\2}", _SIUNITX.sub(r"\1", text))
    if not _MAYBE.search(text):
        return text
    tokens = list(_TOKEN.finditer(text))
    classes = "".join(map(_class_of, tokens))
    starts = [token.start() for token in tokens] + [len(text)]
    kept: list[str] = []
    position = 0
    match = _UNITS.search(classes)
    while match:
        start, chain_start, end = starts[match.start()], starts[match.start("chain")], starts[match.end()]
        if _is_unit(text, start, chain_start, end, match["chain"], match["doubtful"] is not None):
            kept.append(text[position:start])
            position = end
            match = _UNITS.search(classes, match.end())
        else:  # `2 m g \text{ N}`: its last link may be a unit
            later = _SURE.search(classes, match.start("chain") + 1)
            match = _UNITS.search(classes, later.start()) if later else None
    return "".join([*kept, text[position:]])


def _class_of(token: re.Match[str]) -> str:
    kind = token.lastgroup
    if kind == "letters":
        return _class_of_word(token.group())
    if kind == "number":
        return "1" if token.group() == "1" else "x"
    return _CLASS.get(kind, "x") if kind else "x"


@lru_cache(maxsize=1 << 12)
def _class_of_word(word: str) -> str:
    lowered = word.lower()
    if lowered in ("or", "per"):
        return "e" if lowered == "or" else "j"
    if word in _CERTAIN_NAMES or lowered in _WORDS:
        return "u"
    if word not in _SYMBOLS:
        return "x"
    return "v" if word in _ONLY_WRAPPED else "s" if len(word) == 1 else "d"


def _is_unit(text: str, start: int, chain_start: int, end: int, classes: str, doubtful: bool) -> bool:
    """Whether the chain `text[chain_start:end]`, which the grammar takes for units, follows a value that allows it."""
    value, lead, chain = text[:start], text[start:chain_start], text[chain_start:end]
    if not value or not _ENDS_A_VALUE.match(value[-1]) or not _LEAD.fullmatch(lead) or not _is_balanced(chain):
        return False
    if doubtful:
        known = classes[0] != "s" or _KNOWN_COMPOUND.match(chain) or _OVER_A_UNIT.match(classes)
        spaced = lead.isspace() or classes[0] == "o"
        return bool(known and spaced and _PLAIN_NUMBER.fullmatch(_last_side(value)))
    set_apart = _SET_APART.match(chain) is not None
    names = _names(chain)
    if len(names) == 1 and names[0] in _OFTEN_VARIABLES and not (set_apart or lead):
        return False
    certain = end == len(text) and (set_apart or not _looks_like_variables(chain, names))
    return certain or _is_numeric(_last_side(value))


def _is_balanced(chain: str) -> bool:
    return sum(map(chain.count, "([")) == sum(map(chain.count, ")]"))


def _names(chain: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", re.sub(r"\\[a-zA-Z]+", " ", chain))


def _looks_like_variables(chain: str, names: list[str]) -> bool:
    """Whether a chain is one letter, a product of single letters, or stands in brackets."""
    return chain[0] in "([" or (all(len(name) == 1 for name in names) and not re.search(r"[/-]|\\[dt]?frac", chain))


def _last_side(value: str) -> str:
    """What stands after the last relation or comma: `2,3` of `x=2,3` is `3`."""
    return _RELATION.split(value)[-1]


def _is_numeric(value: str) -> bool:
    spelled = re.sub(r"(?<=\d)[eE](?=[-+]?\d)|[xX](?=\s*10)", "", _NUMERIC_COMMAND.sub("", value))
    return re.search(r"[A-Za-z\\]", spelled) is None


_CERTAIN_NAMES = frozenset(_CERTAIN_SYMBOLS.split())
_ONLY_WRAPPED = frozenset(_ONLY_WRAPPED_SYMBOLS.split())
_SYMBOLS = _CERTAIN_NAMES.union(
    _UNPREFIXED.split(),
    _PREFIXED,
    (prefix + unit for unit, prefixes in _PREFIXED.items() for prefix in prefixes.split()),
)
_WORDS = frozenset(_OTHER_WORDS.split()).union(
    _SINGULAR_WORDS.split(), (word + "s" for word in _SINGULAR_WORDS.split())
)
