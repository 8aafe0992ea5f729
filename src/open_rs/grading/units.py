r"""Owns which words after a number are units. Policy: a trailing unit is dropped from answer and gold alike."""

from __future__ import annotations

import re

_WORDS = """
degrees? degs? radians? rads? dollars? cents? euros? pounds? usd rupees? yuan yen rs meters? metres? centimeters?
centimetres? millimeters? millimetres? kilometers? kilometres? decimeters? inch(?:es)? foot feet yards? miles?
angstroms? microns? parsecs? light-?years? arcsec(?:ond)?s? arcsecs seconds? secs? minutes? mins? hours? hrs? days?
weeks? months? years? yrs? grams? kilograms? milligrams? ounces? lbs? tons? tonnes? moles? mol liters? litres?
milliliters? gallons? cups? pints? quarts? units? square cubic sq cu points? people persons? students? boys? girls?
men women children players? teams? members? balls? marbles? coins? apples? oranges? books? pages? cards? tickets?
seats? steps? ways? times? digits? numbers? solutions? pairs? triples? integers? roots? values? terms? joules? ergs?
watts? volts? amps? amperes? ohms? hertz newtons? kelvin celsius fahrenheit pascals? mph kmph kph km cm mm dm nm kg
mg ml kj mol hz khz mhz ev kev mev gev gyr myr kcal cal amu mev atm kpa per bits? bytes? bushels? photons? atoms?
magnitudes? km/h km/hr m/s cm/s ft/s mi/h rpm
"""
_PHRASE = rf"(?:{'|'.join(sorted(_WORDS.split(), key=len, reverse=True))})"
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d)|\s*-?[23](?!\d))?"
_SYMBOL = (
    r"(?:(?!and|or|if|[eidxyn](?![a-zA-Z]))[a-zA-Zμ]{1,3}|\\mu|\\AA|\\Omega|\\ohm)"  # only inside \text{} or \mathrm{}
)
_EXPRESSION = rf"(?:(?:{_PHRASE}|{_SYMBOL})(?![a-zA-Z]){_POWER}[\s./*]*)+"
_WRAPPED = rf"\\text\{{\s*{_EXPRESSION}\}}{_POWER}"  # \text{ cm}^2, \text{ square units}, \text{ m/s}
_BARE = rf"(?<![a-zA-Z\\])(?:{_PHRASE})(?![a-zA-Z]){_POWER}"  # 22.1cm^{2}, 5 hours

UNIT_PATTERN = re.compile(rf"([\w}}).!%])\s*(?:{_WRAPPED}|{_BARE})\s*\.?\s*$", re.IGNORECASE)
WRAPPED_UNIT = re.compile(_EXPRESSION, re.IGNORECASE)
