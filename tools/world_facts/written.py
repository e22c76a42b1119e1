# ruff: noqa: E501 - tables, one row a line
"""Facts written by hand: one table per relation in `written/`, a line: fame band, answers, subjects."""

from __future__ import annotations

from pathlib import Path

from entries import QUARTERS, Entry, Relation

BAND = "fame band set by hand before any model was asked: 4 = best known, 1 = least"
HAND = "the fame bands"
NUMBERED = {"us_president_by_number"}
HAND_FROM_2 = "the fame bands, one tier lower: an ordinal number is looked up, not known"
PEOPLE = {"author_of_work", "painter_of_work", "composer_of_work", "discoverer", "director_of_film",
          "creator_of_character", "us_president_by_number"}  # fmt: skip
RADIUS = "mean radius of the moon in kilometres"
# relation: question, sentence with {s} subject and {a} answer
TEXTS = {
    "author_of_work": ("Who wrote \"{}\"?", "\"{s}\" was written by {a}."),
    "painter_of_work": ("Which artist made {}?", "The artist who made {s} was {a}."),
    "composer_of_work": ("Who composed {}?", "The composer of {s} was {a}."),
    "discoverer": ("Who {}?", "It was {a} who {s}."),
    "year_of_event": ("In which year {}?", "It was in {a} that {s}."),
    "class_of_animal": ("To which class of vertebrates does the {} belong?", "Zoologists count the {s} as a kind of {a}."),
    "city_of_landmark": ("In which city is {}?", "Visitors find {s} in {a}."),
    "director_of_film": ("Who directed the film \"{}\"?", "The film \"{s}\" was directed by {a}."),
    "country_of_company": ("In which country was the company or brand {} founded?", "The company or brand {s} was founded in {a}."),
    "study_of_field": ("What does {} study?", "The subject of {s} is {a}."),
    "formula_of_compound": ("What is the chemical formula of {}?", "The chemical formula of {s} is {a}."),
    "planet_of_moon": ("Which planet does the moon {} orbit?", "The moon {s} orbits {a}."),
    "creator_of_character": ("Which writer or artist created the character {}?", "The character {s} was created by {a}."),
    "god_of_domain": ("Who is the {}?", "The {s} is {a}."),
    "us_president_by_number": ("Who was the {} president of the United States?", "The {s} president of the United States was {a}."),
    "country_of_natural_feature": ("In which country is {}?", "Maps show {s} in {a}."),
    "country_of_person": ("In which country was {} born?", "The birthplace of {s} is in {a}."),
}  # fmt: skip
FILES = {"city_of_landmark": "place_of_landmark"}
ARTICLE = {"United States", "United Kingdom", "Netherlands", "Philippines"}
RELATIONS = tuple(
    Relation(name, question, RADIUS if name == "planet_of_moon" else BAND,
             QUARTERS if name == "planet_of_moon" else HAND_FROM_2 if name in NUMBERED else HAND,
             ("written", f"check:{name}"), first=2 if name in NUMBERED else 1)
    for name, (question, _) in TEXTS.items()
)  # fmt: skip


def rows(name: str) -> list[tuple[str, str, list[str], str]]:
    """Band, answer, aliases and one subject per row of a table."""
    path = Path(__file__).parent / "written" / f"{FILES.get(name, name)}.tsv"
    out = []
    for line in path.read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        band, answers, subjects = line.split("\t")
        answer, *aliases = answers.split("|")
        surname = answer.split()[-1]
        if name in PEOPLE and "=" not in aliases and surname != answer and len(surname) > 2:
            aliases.append(surname)
        aliases = [alias for alias in dict.fromkeys(aliases) if alias != "="]
        out.extend((band, answer, aliases, subject.strip()) for subject in subjects.split(";"))
    return out


def facts() -> list[Entry]:
    """All facts written by hand; a passage sets the fact among two more of its relation."""
    out = []
    for name, (_, sentence) in TEXTS.items():
        for band, answer, aliases, text in rows(name):
            subject, clause, fame = text, text, 5 - int(band) if band != "*" else 0
            if name == "planet_of_moon":
                subject, radius = text.split("=")
                clause, fame = subject, int(radius)
            if name == "year_of_event":
                subject, clause = text.split("|")
            said = f"the {answer}" if answer in ARTICLE else answer
            entry = Entry(name, subject, answer, aliases, fame, [sentence.format(s=clause, a=said)])
            entry.tier = int(band) if band != "*" else 0
            if name == "year_of_event":
                year = int(answer)
                entry.pool = [
                    str(year + step) for step in (-17, -12, -9, -6, -4, -2, 3, 5, 8, 11) if year + step < 2020
                ]
            out.append(entry)
    return out
