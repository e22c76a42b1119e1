"""Writes kick_core/world_facts/data from the open data packages and the tables written by hand.

    pip install -r tools/world_facts/requirements.txt
    python tools/world_facts/build.py [OUT]

Same packages, same bytes: nothing is drawn at random, options and passages are ordered by hashes of their names.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import cities
import countries
import elements
import written
from entries import Entry, Relation, contains, plain, ranked, slug, spellings

OUT = Path(__file__).parents[2] / "kick_core" / "world_facts" / "data"
RELATIONS = (*countries.RELATIONS, *cities.RELATIONS, *elements.RELATIONS, *written.RELATIONS)
# whose facts are worked examples, whatever the question: a fact and its reverse are never on both sides
HELD = {
    "country": {"Poland", "Vietnam", "Colombia", "Ghana", "Austria"},
    "state": {"Oregon", "Ohio", "Vermont"},
    "element": {"silicon", "zinc", "cobalt"},
}
HELD_COUNT = 3


def alike(first: str, second: str) -> bool:
    """Whether a reader could take one answer for the other: one stands within the other."""
    return bool(contains(first, second) or contains(second, first))


def options(entry: Entry, pools: dict[str, list[str]]) -> list[str]:
    """Three wrong answers of the same kind, or fewer where the relation has no more.

    Args:
        entry: The fact.
        pools: All answers of each relation.
    """
    forms = {plain(name) for name in [entry.answer, *entry.aliases, *entry.also_right]}
    drawn: list[str] = []
    salt = f"{entry.relation}/{entry.subject}"
    near, whole = ranked(entry.pool or [], salt), ranked(pools[entry.relation], salt)
    for name in [*near, *(whole if entry.pool is None or not entry.pool[0].isdigit() else [])]:
        others = [*drawn, entry.answer, *entry.aliases]
        if plain(name) not in forms and not any(alike(name, other) for other in others) and len(drawn) < 3:
            drawn.append(name)
    return drawn


def passage(entry: Entry, others: list[Entry]) -> str:
    """Two to four sentences that hold the answer once: the fact among other sentences in hashed order."""
    own, *rest = entry.sentences
    chosen = [text for text in rest if not mentions(text, entry)][:3]
    wanted = 2 if not chosen else 1 if len(chosen) == 1 else 0
    for other in others:
        text = other.sentences[0]
        if not wanted:
            break
        if other.answer != entry.answer and not mentions(text, entry) and text not in chosen:
            chosen.append(text)
            wanted -= 1
    lines = [own, *chosen] if rest and not others_mixed(entry) else ranked([own, *chosen], entry.subject)
    return " ".join(line[0].upper() + line[1:] for line in lines)


def others_mixed(entry: Entry) -> bool:
    """Whether the sentences stand on their own, so that any order reads well."""
    return not any(text.startswith(("It ", "The code", "The three", "About")) for text in entry.sentences[1:])


def mentions(text: str, entry: Entry) -> bool:
    """Whether a sentence names the answer or an alias of it."""
    return any(contains(text, name) for name in [entry.answer, *entry.aliases])


def leaks(entry: Entry, question: str) -> bool:
    """Whether the question gives the answer away, or the answer is the subject with a word more."""
    names = [entry.answer, *entry.aliases]
    inside = any((len(plain(n)) > 3 and plain(n) in plain(question)) or contains(question, n) for n in names)
    return inside or (len(plain(entry.subject)) > 3 and plain(entry.subject) in plain(entry.answer))


def set_tiers(entries: list[Entry], first: int) -> None:
    """Equal parts by popularity from tier `first` to 4 where no band was set by hand, which then moves down to `first`.

    Equal numbers share no order but the subject's.
    """
    for place, entry in enumerate(sorted(entries, key=lambda entry: (-entry.popularity, entry.subject))):
        entry.tier = min(4, entry.tier + first - 1) if entry.tier else first + (5 - first) * place // len(entries)


def held_out(relation: Relation, entries: list[Entry]) -> set[str]:
    """Subjects of the worked examples: the family's, or the first by hash among the better known half."""
    if relation.family in HELD:
        return {entry.subject for entry in entries if entry.entity in HELD[relation.family]}
    better = [entry.subject for entry in entries if entry.tier <= 2]
    return set(ranked(better, f"held out {relation.name}")[:HELD_COUNT])


def row(entry: Entry, pools: dict[str, list[str]], others: list[Entry]) -> dict[str, object] | None:
    """An entry as it is written, or None where it has no three wrong answers or no passage with its answer once."""
    wrong = options(entry, pools)
    text = passage(entry, others)
    if len(wrong) < 3 or contains(text, entry.answer) != 1:
        return None
    return {
        "id": f"{entry.relation}/{slug(entry.subject) or entry.subject}",
        "subject": entry.subject,
        "answer": entry.answer,
        "aliases": spellings(entry.answer, entry.aliases),
        "distractors": wrong,
        "passage": text,
        "popularity": entry.popularity,
        "tier": entry.tier,
    }


def prepared(relation: Relation, entries: list[Entry]) -> list[Entry]:
    """The entries of a relation that can be asked, one per subject."""
    unique: dict[str, Entry] = {}
    twice = set()
    for entry in entries:
        if slug(entry.subject) in unique:
            twice.add(slug(entry.subject))
        if not leaks(entry, relation.question.format(entry.subject)):
            unique[slug(entry.subject)] = entry
    return [entry for name, entry in unique.items() if name not in twice]


def build() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Questions and worked examples."""
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry in [*countries.facts(), *cities.facts(), *elements.facts(), *written.facts()]:
        grouped[entry.relation].append(entry)
    asked: list[dict[str, object]] = []
    examples: list[dict[str, object]] = []
    pools = {name: [entry.answer for entry in entries] for name, entries in grouped.items()}
    for relation in RELATIONS:
        entries = prepared(relation, grouped[relation.name])
        set_tiers(entries, relation.first)
        held = held_out(relation, entries)
        rows = []
        for entry in sorted(entries, key=lambda entry: (entry.tier, -entry.popularity, entry.subject)):
            by_subject = {other.subject: other for other in entries}
            others = [by_subject[name] for name in ranked(list(by_subject), entry.subject)]
            rows.append(row(entry, pools, others))
        known = [item for item in rows if item]
        asked.extend(item for item in known if item["subject"] not in held)
        examples.extend([item for item in known if item["subject"] in held][:HELD_COUNT])
    return [item for item in asked if pair(item) not in set(map(pair, examples))], examples


def pair(item: dict[str, object]) -> frozenset[str]:
    """Subject and answer of a row in no order: the same for a fact and its reverse."""
    return frozenset((plain(str(item["subject"])), plain(str(item["answer"]))))


def lines(rows: list[dict[str, object]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n" for item in rows)


def write(out: Path) -> None:
    """Write the files of the data folder."""
    asked, examples = build()
    out.mkdir(parents=True, exist_ok=True)
    table = {
        r.name: {"question": r.question, "unit": r.unit, "tiers": r.tiers, "sources": r.sources} for r in RELATIONS
    }
    (out / "facts.jsonl").write_text(lines(asked), "utf-8")
    (out / "worked_examples.jsonl").write_text(lines(examples), "utf-8")
    (out / "sources.json").write_text((Path(__file__).parent / "sources.json").read_text("utf-8"), "utf-8")
    (out / "relations.json").write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", "utf-8")
    print(f"{len(asked)} questions, {len(examples)} worked examples in {out}")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
