# ruff: noqa: E501 - tables, one row a line
"""Chemical elements (periodictable), languages' codes and currencies' codes (CLDR)."""

from __future__ import annotations

import langcodes
import periodictable
from babel import Locale
from countries import states
from entries import LOOKED_UP, QUARTERS, Entry, Relation

FAME = "place in a list that was ordered by hand, counted from the least known element"
RELATIONS = (
    Relation("symbol_of_element", "What is the chemical symbol of {}?", FAME, QUARTERS, ("periodictable",), "element"),
    Relation("element_of_symbol", "Which chemical element has the symbol {}?", FAME, QUARTERS, ("periodictable",), "element"),
    Relation("number_of_element", "What is the atomic number of {}?", FAME, LOOKED_UP, ("periodictable",), "element", first=2),
    Relation("element_of_number", "Which chemical element has the atomic number {}?", FAME, LOOKED_UP, ("periodictable",), "element", first=2),
    Relation("language_of_code", "Which language has the ISO 639-1 code \"{}\"?", "speakers (CLDR, by the package language_data)", LOOKED_UP, ("cldr", "language_data"), "language", first=2),
    Relation("currency_of_code", "Which currency has the code {}?", "inhabitants of the countries that pay with it (GeoNames)", LOOKED_UP, ("cldr", "geonames"), "currency", first=2),
)  # fmt: skip
# from the best to the least known
ORDER = [
    "H",
    "O",
    "C",
    "He",
    "N",
    "Au",
    "Fe",
    "Ag",
    "Cu",
    "Na",
    "Cl",
    "Al",
    "Ca",
    "K",
    "Pb",
    "Hg",
    "Ne",
    "U",
    "Zn",
    "Ni",
    "Mg",
    "S",
    "P",
    "Si",
    "Sn",
    "Pt",
    "F",
    "I",
    "Li",
    "Ti",
    "Ar",
    "Kr",
    "B",
    "Br",
    "Ra",
    "Pu",
    "Co",
    "Cr",
    "Mn",
    "W",
    "Xe",
    "Be",
    "As",
    "Rn",
    "Ba",
    "Cs",
    "V",
    "Sb",
    "Pd",
    "Bi",
    "Po",
    "Cd",
    "Ga",
    "Ge",
    "Se",
    "Sr",
    "Rb",
    "Mo",
    "Zr",
    "Ir",
    "Os",
    "Rh",
    "Th",
    "Am",
    "Fr",
    "Cm",
    "Es",
    "Np",
    "In",
    "Tl",
    "Te",
    "Ru",
    "Nb",
    "Ta",
    "Y",
    "Sc",
    "At",
    "Nd",
    "Ce",
    "La",
    "Hf",
    "Re",
    "Tc",
    "Pa",
    "Ac",
    "Eu",
    "Gd",
    "Sm",
    "Pr",
    "Pm",
    "Er",
    "Yb",
    "Ho",
    "Dy",
    "Tb",
    "Tm",
    "Lu",
    "Cf",
    "Bk",
    "Fm",
    "Md",
    "No",
    "Lr",
    "Rf",
    "Sg",
    "Bh",
    "Hs",
    "Mt",
    "Db",
    "Ds",
    "Rg",
    "Cn",
    "Nh",
    "Fl",
    "Mc",
    "Lv",
    "Ts",
    "Og",
]
WORDS = set(["I", "In", "As", "At", "He", "Be", "No", "Am"])  # symbols that are English words
ALIASES = {"aluminum": ["aluminium"], "aluminium": ["aluminum"], "cesium": ["caesium"], "sulfur": ["sulphur"], "tungsten": ["wolfram"]}  # fmt: skip

LANGUAGES = {
    "bn": ["Bengali"], "or": ["Oriya"], "ny": ["Chichewa", "Chewa"], "ff": ["Fulah", "Fulani", "Fulfulde"],
    "rn": ["Kirundi"], "ii": ["Nuosu"], "ki": ["Gikuyu"], "st": ["Sotho", "Sesotho"], "lg": ["Luganda"],
    "ug": ["Uighur"], "fa": ["Farsi"], "ht": ["Haitian"], "si": ["Sinhalese"], "pa": ["Panjabi"], "ps": ["Pushto"],
    "ky": ["Kirghiz"], "sl": ["Slovene"], "ss": ["Swazi", "siSwati"], "nd": ["Ndebele"], "az": ["Azeri"],
    "xh": ["isiXhosa"], "zu": ["isiZulu"], "sw": ["Kiswahili"], "tn": ["Setswana"], "ga": ["Gaelic"],
    "ts": ["Xitsonga"], "ve": ["Tshivenda"], "kg": ["Kikongo"], "lo": ["Laotian"], "ms": ["Bahasa Melayu"],
    "id": ["Bahasa Indonesia"], "sn": ["chiShona"], "es": ["Castilian"],
}  # fmt: skip
CURRENCIES = {
    "USD": ["US dollar", "U.S. dollar", "American dollar"], "GBP": ["pound sterling", "sterling"],
    "CNY": ["renminbi"], "XOF": ["CFA franc"], "XAF": ["CFA franc"], "GYD": ["Guyanese dollar", "Guyana dollar"],
    "TTD": ["Trinidad and Tobago dollar"], "STN": ["São Tomé and Príncipe dobra"], "FJD": ["Fiji dollar"],
    "BBD": ["Barbados dollar"], "BSD": ["Bahamas dollar"], "SCR": ["Seychelles rupee"], "RUB": ["Russian rouble"],
    "BYN": ["Belarusian rouble"], "UZS": ["Uzbek som"], "DJF": ["Djibouti franc"], "SRD": ["Suriname dollar"],
    "BAM": ["convertible mark", "Bosnian mark"], "TMT": ["Turkmen manat"], "MUR": ["Mauritius rupee"],
    "CDF": ["Congo franc"], "KZT": ["Kazakh tenge"], "PEN": ["sol"], "ILS": ["Israeli shekel"],
}  # fmt: skip


def chemistry() -> list[Entry]:
    """Symbols, names and atomic numbers of the 118 elements."""
    out = []
    names = {element.symbol: element.name for element in periodictable.elements if element.number}
    numbers = {element.symbol: element.number for element in periodictable.elements if element.number}
    for place, symbol in enumerate(ORDER):
        name, number, fame = names[symbol], numbers[symbol], len(ORDER) - place
        named = f"Chemists write {symbol} for {name}."
        counted = f"The atomic number of {name} is {number}."
        after = [f"{names[s].capitalize()} has the atomic number {numbers[s]}." for s in names if abs(numbers[s] - number) == 1]  # fmt: skip
        aliases = ALIASES.get(name, [])
        near = [str(number + step) for step in (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5) if 0 < number + step <= 118]
        close = [names[s] for s in names if 0 < abs(numbers[s] - number) <= 8]
        alike = [s for s in names if s[0] == symbol[0] and s != symbol]
        if symbol not in WORDS:
            pool = alike if len(alike) >= 3 else None
            out.append(Entry("symbol_of_element", name, symbol, [], fame, [named, counted, *after], name, pool=pool))
        pool = [names[s] for s in alike] if len(alike) >= 3 else close
        out.append(Entry("element_of_symbol", symbol, name, aliases, fame, [named, *after], name, pool=pool))  # fmt: skip
        out.append(Entry("number_of_element", name, str(number), [], fame, [counted, named, *after], name, pool=near))
        out.append(Entry("element_of_number", str(number), name, aliases, fame, [counted, *after], name, pool=close))
    return out


def languages() -> list[Entry]:
    """Languages' two-letter codes, for languages of a million speakers or more."""
    out = []
    for code, name in sorted(Locale("en").languages.items()):
        speakers = langcodes.Language.get(code).speaking_population() if len(code) == 2 else 0
        if speakers < 1_000_000 or code in {"sh", "nb", "no", "nn", "tl", "zh"}:
            continue
        three = langcodes.Language.get(code).to_alpha3()
        texts = [f"The ISO 639-1 standard gives {name} the code \"{code}\".", f"The three-letter code for the same language is \"{three}\".", "The codes are used on the web to mark the language of a page."]  # fmt: skip
        out.append(Entry("language_of_code", code, str(name), LANGUAGES.get(code, []), speakers, texts, str(name)))
    return out


def currencies() -> list[Entry]:
    """Currencies' three-letter codes, for currencies in use."""
    users: dict[str, list[object]] = {}
    for state in states().values():
        if state.currency:
            users.setdefault(state.currency[0], []).append(state)
    unit_count: dict[str, int] = {}
    names = {code: rows[0].currency[1] for code, rows in users.items()}  # type: ignore[attr-defined]
    for name in names.values():
        unit_count[name.split()[-1]] = unit_count.get(name.split()[-1], 0) + 1
    out = []
    for code, name in sorted(names.items()):
        rows = users[code]
        full = name.replace("US Dollar", "United States dollar")
        words = full.split()
        answer = " ".join([*words[:-1], words[-1].lower()])
        alone = [words[-1].lower()] if unit_count[name.split()[-1]] == 1 and len(words) > 1 else []
        size = sum(row.population for row in rows)  # type: ignore[attr-defined]
        texts = [f"Banks write {code} for the {answer}.", "The code has three letters and comes from the standard ISO 4217.", "It is used in exchange rates and on invoices."]  # fmt: skip
        out.append(Entry("currency_of_code", code, answer, [*alone, *CURRENCIES.get(code, [])], size, texts, answer))
    return out


def facts() -> list[Entry]:
    """All facts about elements, languages and currencies."""
    return [*chemistry(), *languages(), *currencies()]
