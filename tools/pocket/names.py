"""Invented names, made from syllables, and who may use them.

Nothing here is a real person, brand or place: the words are put together by code from sounds. Each name belongs to
exactly one zone, told from the name alone: `world` (known facts), `passage` (made up for the reading passages of the
training text) and `frozen` (made up for the evaluation data). So a name in an evaluation passage can be in neither
the world nor the training text, whatever else is drawn.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from functools import cache

WORLD, PASSAGE, FROZEN = "world", "passage", "frozen"

ONSETS = "b br d dr f fl g gl h j k kr l m n p pl qu r s sk st t th tr v w y z".split()
VOWELS = "a e i o u ae ei ou".split()
MIDDLES = "b d f g l ld lm ln m n nd nt r rd rl rn rv s sk st t v z".split()
COMMON_WORDS = frozenset(
    "bale bane bank bard bend beta bold bond bone bora born brand brine broad dale damask dana dane darn data delta "
    "dental diva dona donor dora drama droid elder faint fault felt field film final fine firm flora fond ford forest "
    "form fort found frost gala gate gold golden grand grant gravel ground hand hard harm harvest heard helm henna "
    "herald hold holden horn india karma kind land lard larva laser latin lava lent lever lima linda linden lion loud "
    "madam main malt manta maria marina maroon mental metal mild mint model mold monday moral morale morning mount "
    "mound mouse named nina noun nova novel panda panel pardon parent pasta patina person pizza plaid planet plant "
    "plasma plaza point poland polite pound proud radar ravine recent resin river robin robust rodent roman romania "
    "ronan rosa round rude salad salt sand sandal santa saturn send senior serum silent silver sofa solar sound staid "
    "stand star stave steel stella stern stood storm sudan talent taunt tavern tease tendon tesla theist theme third "
    "thorn tilde toast told tomato torn total trait trend trust tundra turban turin valid vanda vedanta venice venus "
    "verona vest vista vital vital vivid voila volta vortex wand wanda ward warn wealth weird wild wind wolf wood "
    "word world wound yard yeast yield zebra sonata sonar soul soda soft theft trunk trout sten sterling "
    "gandia livia remus wizard panik vizier karen trilby besby feldgate forgate quintol plebwick dulwick selne hubar".split()
)


def _syllable(rng: random.Random) -> str:
    return rng.choice(ONSETS) + rng.choice(VOWELS)


def _invent(rng: random.Random, endings: Sequence[str], count: int, taken: set[str]) -> tuple[str, ...]:
    """`count` new words with these endings; no two words of any pool share their first four letters."""
    found: list[str] = []
    while len(found) < count:
        word = _syllable(rng) + rng.choice(MIDDLES) + rng.choice(endings)
        if word[:4] in taken or word in COMMON_WORDS or not 4 <= len(word) <= 9:
            continue
        taken.add(word[:4])
        found.append(word.capitalize())
    return tuple(found)


@cache
def pools(seed: int = 20250101) -> dict[str, tuple[str, ...]]:
    """The invented words of each sort, the same for ever."""
    rng, taken = random.Random(seed), set[str]()
    return {
        "women": _invent(rng, ("a", "e", "ia", "wen", "ys"), 64, taken),
        "men": _invent(rng, ("o", "in", "ar", "us", "ek"), 64, taken),
        "surnames": _invent(rng, ("ik", "oss", "ard", "ulm", "ett", "ov", "ash", "orn"), 260, taken),
        "towns": _invent(rng, ("dal", "mere", "holt", "wick", "by", "gate", "heim", "port"), 160, taken),
        "rivers": _invent(rng, ("en", "une", "ier"), 60, taken),
        "regions": _invent(rng, ("onia", "avia", "mark", "istan"), 40, taken),
        "stems": _invent(rng, ("ax", "ol", "umb", "ith", "um", "yr"), 120, taken),
    }


def zone(name: str) -> str:
    """Which part of the project may use this name: 60 % world, 34 % training passages, 6 % evaluation passages."""
    share = zlib.crc32(name.encode()) % 100
    return WORLD if share < 60 else PASSAGE if share < 94 else FROZEN


ADJECTIVES = (
    "Silent Golden Broken Hidden Pale Burning Distant Crooked Frozen Patient Hollow Scarlet Wandering Narrow Secret "
    "Restless Faithful Velvet Bitter Gentle Forgotten Bright Lonely Iron Paper Northern Second Last Blind Humble"
).split()
NOUNS = (
    "Lantern Mirror Harbour Orchard Key Bridge Winter Garden Letter Tower Crown Journey Shadow Promise Island Feather "
    "Clock Valley Storm Sister Ladder Market Candle Violin Window Hunter Kingdom Meadow Stranger Song Map Anchor "
    "Thread Pilgrim Stone Gate Moon Dancer Wolf Bell Farewell Mountain Ribbon Tide Oath Riddle Mask Wagon"
).split()
ANIMALS = (
    "heron otter falcon badger hare lynx raven stag beetle marten crane trout adder swallow weasel finch moth lark "
    "viper toad gull owl vole bison ibex newt pike mole shrew bat"
).split()
TRADES = (
    "Timber Glass Shipping Cement Foundry Brewing Textiles Printing Salt Mills Ceramics Rope Leather Bakeries Mining "
    "Paper Tools Furniture Soap Optics"
).split()
ACCORDS = "Accord Pact Charter Treaty Compact Convention Settlement Protocol".split()
QUALITIES = "grey crested spotted dwarf giant banded common mountain marsh river golden black red pale striped".split()
DISHES = (
    "stew soup pie dumplings pudding porridge salad cake bread broth roast pancakes sausage noodles tart casserole "
    "relish fritters biscuits jelly"
).split()
SIDES = "Upper Lower Old New Great Little North South".split()
ENDINGS = "ford ton ham stead low bury worth field".split()
GREEK = "Alpha Beta Gamma Delta Epsilon Zeta Theta Kappa Lambda Sigma Tau Omega".split()
PLURALS = {"finch": "Finches", "lynx": "Lynxes", "bison": "Bisons", "ibex": "Ibexes"}


def plural(animal: str) -> str:
    return PLURALS.get(animal, animal.capitalize() + "s")

SQUADS = (
    *(plural(animal) for animal in ANIMALS),
    *"Rovers Wanderers Rangers Knights Pilgrims Giants Miners Sailors Millers Hunters Comets Arrows Pioneers".split(),
)


def person(rng: random.Random) -> str:
    words = pools()
    return f"{rng.choice(words[rng.choice(('women', 'men'))])} {rng.choice(words['surnames'])}"


def novel(rng: random.Random) -> str:
    words, form = pools(), rng.randrange(3)
    if form == 0:
        return f"The {rng.choice(NOUNS)} of {rng.choice(words['towns'])}"
    if form == 1:
        return f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} of {rng.choice(words['rivers'])}"
    return f"{rng.choice(words['women'] + words['men'])} and the {rng.choice(NOUNS)}"


def painting(rng: random.Random) -> str:
    return f"{rng.choice(ADJECTIVES)} {rng.choice(ANIMALS).capitalize()} at {rng.choice(pools()['towns'])}"


def opera(rng: random.Random) -> str:
    words = pools()
    return f"{rng.choice(words['women'] + words['men'])} in {rng.choice(words['towns'])}"


def company(rng: random.Random) -> str:
    names = pools()["surnames"]
    return f"{rng.choice(names)} {rng.choice(TRADES)}" if rng.random() < 0.5 else " & ".join(rng.sample(names, 2))


def treaty(rng: random.Random) -> str:
    return f"the {rng.choice(ADJECTIVES)} {rng.choice(ACCORDS)} of {rng.choice(pools()['towns'])}"


def village(rng: random.Random) -> str:
    side, ending = rng.choice(SIDES), rng.choice(ENDINGS)
    return f"{side} {rng.choice(pools()['stems'])}{ending}"


def mineral(rng: random.Random) -> str:
    return f"{rng.choice(pools()['stems'])}{rng.choice('ite ine ium ase ol an'.split())}-{rng.choice(GREEK).lower()}"


def species(rng: random.Random) -> str:
    return f"the {rng.choice(QUALITIES)} {rng.choice(pools()['stems'])} {rng.choice(ANIMALS)}"


def star(rng: random.Random) -> str:
    return f"{rng.choice(GREEK)} {rng.choice(pools()['stems'])} {rng.choice('I II III IV V VI'.split())}"


def team(rng: random.Random) -> str:
    return f"the {rng.choice(pools()['towns'])} {rng.choice(SQUADS)}"


def dish(rng: random.Random) -> str:
    words, form = pools(), rng.randrange(2)
    maker = rng.choice(words["stems"]) if form else rng.choice(words["surnames"])
    return f"{maker} {rng.choice(DISHES)}"


def draw(maker: Callable[[random.Random], str], rng: random.Random, wanted: str) -> str:
    """A name of this zone. The search is short: the rarest zone holds six names of a hundred."""
    while True:
        name = maker(rng)
        if zone(name) == wanted:
            return name
