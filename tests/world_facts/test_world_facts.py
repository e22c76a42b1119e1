"""The shipped facts: what each question promises, and that the build script writes the same bytes again."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from kick_core import world_facts
from kick_core.tasks.data import facts
from kick_core.world_facts import Fact

ROOT = Path(__file__).parents[2]
ALL = [*world_facts.rows(), *world_facts.worked_examples()]

# codes and ordinal numbers are looked up and not known: none of them is a best known fact
LOOKED_UP = {
    "country_of_domain", "abbreviation_of_state", "number_of_element", "element_of_number", "language_of_code",
    "currency_of_code", "us_president_by_number",
}  # fmt: skip


def plain(text: str) -> str:
    """Lower-case words without diacritics, punctuation and a leading article; written apart from the build's own."""
    text = text.translate(str.maketrans("øØłŁđĐı", "oOlLdDi"))
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"^(the|an?) (?=.)", "", " ".join(re.findall(r"[a-z0-9]+", text)))


def count(text: str, phrase: str) -> int:
    return len(re.findall(rf"\b{re.escape(plain(phrase))}\b", plain(text)))


def broken(rule: object) -> list[str]:
    return [fact.id for fact in ALL if not rule(fact)]  # type: ignore[operator]


def right(fact: Fact) -> set[str]:
    return {plain(name) for name in (fact.answer, *fact.aliases)}


def test_there_are_thousands_of_facts_with_unique_ids_and_questions() -> None:
    assert len(world_facts.rows()) >= 2000
    assert len({fact.id for fact in ALL}) == len({fact.question for fact in ALL}) == len(ALL)


def test_four_options_differ_and_one_is_right() -> None:
    assert broken(lambda fact: len({plain(name) for name in (fact.answer, *fact.distractors)}) == 4) == []
    assert broken(lambda fact: not right(fact) & {plain(name) for name in fact.distractors}) == []


def test_no_wrong_option_stands_within_a_right_answer_or_around_it() -> None:
    def apart(fact: Fact) -> bool:
        names = (fact.answer, *fact.aliases)
        return not any(count(wrong, name) or count(name, wrong) for wrong in fact.distractors for name in names)

    assert broken(apart) == []


def test_the_passage_holds_the_answer_once_in_two_to_four_sentences() -> None:
    assert broken(lambda fact: count(fact.passage, fact.answer) == 1) == []
    assert broken(lambda fact: 2 <= len(re.findall(r"[.!?](?= [\"A-Z0-9]|$)", fact.passage)) <= 9) == []


def test_a_counterfactual_passage_holds_the_wrong_answer_and_no_right_one() -> None:
    examples = facts.counterfactual("official")
    assert len(examples) > 4000
    for example in examples:
        passage, (gold, *names) = example.meta["passage"], example.answers
        assert count(passage, gold) == 1 and not any(count(passage, true) for true in example.meta["true_answers"])
        assert not {plain(name) for name in (gold, *names)} & {plain(true) for true in example.meta["true_answers"]}


def test_no_question_gives_its_answer_away() -> None:
    assert broken(lambda fact: not any(count(fact.question, name) for name in (fact.answer, *fact.aliases))) == []


def test_tiers_are_balanced_and_follow_popularity() -> None:
    groups: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for fact in world_facts.rows():
        groups[fact.relation][fact.tier].append(fact.popularity)
    for relation, tiers in groups.items():
        sizes = Counter({tier: len(values) for tier, values in tiers.items()})
        assert set(sizes) == ({2, 3, 4} if relation in LOOKED_UP else {1, 2, 3, 4}), relation
        assert min(sizes.values()) >= sum(sizes.values()) / 8, (relation, sizes)
        for better, worse in pairwise(sorted(tiers)):
            assert min(tiers[better]) >= max(tiers[worse]), relation
    totals = Counter(fact.tier for fact in world_facts.rows())
    assert max(totals.values()) < 1.6 * min(totals.values())


def test_every_relation_has_worked_examples_and_none_is_asked_or_reversed() -> None:
    held = Counter(fact.relation for fact in world_facts.worked_examples())
    assert set(held) == {fact.relation for fact in world_facts.rows()}
    assert set(held.values()) == {3}
    pairs = {frozenset((plain(fact.subject), plain(fact.answer))) for fact in world_facts.worked_examples()}
    assert [f.id for f in world_facts.rows() if frozenset((plain(f.subject), plain(f.answer))) in pairs] == []


def test_every_source_has_a_licence_and_what_was_written_by_hand_two_places_to_check_it() -> None:
    sources = world_facts.sources()
    assert all(source["name"].count("; ") >= 1 for key, source in sources.items() if key.startswith("check:"))
    assert all(f"check:{fact.relation}" in fact.sources for fact in ALL if "written" in fact.sources)
    assert {key for fact in ALL for key in fact.sources} == set(sources)
    assert all(source["licence"] for source in sources.values())


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of France?", "Paris"),
        ("What is the currency of Japan?", "yen"),
        ("Which chemical element has the symbol Fe?", "iron"),
        ("Who wrote \"Hamlet\"?", "William Shakespeare"),
        ("In which U.S. state is the city of Chicago?", "Illinois"),
    ],
)  # fmt: skip
def test_well_known_facts_are_as_everybody_knows_them(question: str, answer: str) -> None:
    assert {fact.answer for fact in ALL if fact.question == question} == {answer}


def test_the_build_script_writes_the_committed_bytes(tmp_path: Path) -> None:
    tools = ROOT / "tools" / "world_facts"
    for pin in (tools / "requirements.txt").read_text().split():
        name, version = pin.split("==")
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "none"
        if installed != version:
            pytest.skip(f"{pin} is not installed: pip install -r tools/world_facts/requirements.txt")
    subprocess.run([sys.executable, str(tools / "build.py"), str(tmp_path)], check=True, capture_output=True)
    data = ROOT / "kick_core" / "world_facts" / "data"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in data.iterdir()
    }


def test_letters_and_words_ask_the_same_and_no_shot_is_asked() -> None:
    words = {example.id: example for example in facts.choice("official")}
    shown = {fact.question for fact in world_facts.worked_examples()}
    for example in facts.letters("official")[:200]:
        assert example.answers == words[example.id].answers and example.choices == (" A", " B", " C", " D")
        assert len(example.prompt) == 7 and example.prompt[-1].endswith(f"D. {example.meta['options'][3]}\nAnswer:")
        assert {shot.splitlines()[0] for shot in example.prompt[1:-1]} <= shown
