"""Six plots, told beat by beat.

A beat has tellings for the story, a sentence for the summary, and the words that a summary must keep. Beats come in
the order of the story; `core` is the shortest version's beats. Slots in braces are filled by `stories.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Beat:
    tellings: tuple[str, ...]
    summary: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """`core` beats are told in every length, `medium` ones are added for the middle length, all for the long one."""

    name: str
    beats: tuple[Beat, ...]
    core: tuple[int, ...]
    medium: tuple[int, ...]


def beat(tellings: str, summary: str, kept: str) -> Beat:
    return Beat(*(tuple(part.strip() for part in text.split("|")) for text in (tellings, summary, kept)))


def introduction(goal: str) -> Beat:
    return beat(
        "There was once {a_trade} called {hero} who lived in {home}.|In {home} lived {hero}, who was {a_trade}.|"
        "The {trade} {hero} had spent a whole life in {home}.|Everybody in {home} knew {hero}, the {trade}.",
        "The {trade} {hero} of {home} " + goal + "|In {home}, the {trade} {hero} " + goal,
        "{hero}|{trade}|{home}",
    )


DELIVERY = Plot(
    "delivery",
    (
        introduction("must bring {thing} to {town}."),
        beat(
            "One morning a message came: {thing} were needed in {town}.|One day {hero} was asked to bring {thing} to {town}.|"
            "A letter arrived from {town}, asking for {thing} without delay.",
            "", "{thing}|{town}",
        ),
        beat(
            "At the {place} the way was blocked by {trouble}.|But near the {place} there was {trouble}, and no way round it.|"
            "Halfway, at the {place}, {hero} met with {trouble}.",
            "At the {place} there is {trouble}.", "{place}|{trouble}",
        ),
        beat(
            "Then {friend} came along and lent a hand.|A stranger called {friend} offered to help.|Luckily {friend} knew another path.",
            "{friend} helps.", "{friend}",
        ),
        beat(
            "For the night they found shelter in the {shelter}.|They slept in the {shelter} and went on at dawn.|"
            "When darkness fell, the {shelter} gave them a roof.",
            "They sleep in the {shelter}.", "{shelter}",
        ),
        beat(
            "When the {thing} were delivered at last, the people of {town} paid with {reward}.|The {thing} arrived in time, and {hero} was given {reward}.|"
            "In {town} there was great joy, and {hero} went home with {reward}.",
            "The {thing} arrive, and {hero} receives {reward}.", "{reward}",
        ),
    ),
    (0, 1, 5), (2, 3),
)

SEARCH = Plot(
    "search",
    (
        introduction("has lost the {treasure}."),
        beat(
            "The greatest treasure of the house was the {treasure}. One night it was gone.|Then, on a dark evening, the {treasure} disappeared.|"
            "But when the guests had left, the {treasure} was nowhere to be found.",
            "", "{treasure}",
        ),
        beat(
            "At first {hero} suspected {suspect}, who had been seen near the door.|The neighbours whispered that {suspect} must be the thief.|"
            "All eyes turned to {suspect}, though there was no proof.",
            "Suspicion falls on {suspect}.", "{suspect}",
        ),
        beat(
            "A trail of {clue} led out of the house.|On the floor lay some {clue}, and that was a beginning.|It was {clue} on the stairs that gave {hero} an idea.",
            "A trail of {clue} is found.", "{clue}",
        ),
        beat(
            "Together with {friend} the search went on all night.|The clever {friend} followed the trail with a lantern.|{friend} offered to come along and search.",
            "{friend} joins the search.", "{friend}",
        ),
        beat(
            "At last the {treasure} was found in the {shelter}, where {animal} had hidden it.|In the {shelter} sat {animal}, and beside it lay the {treasure}.|"
            "Nobody laughed louder than {hero} when {animal} was caught in the {shelter} with the {treasure}.",
            "It is found in the {shelter}; the thief was {animal}.", "{shelter}|{animal}",
        ),
    ),
    (0, 1, 5), (2, 3),
)

CONTEST = Plot(
    "contest",
    (
        introduction("enters the {sport} contest of {town}."),
        beat(
            "That summer {town} held a great contest in {sport}.|Word went round that {town} was looking for the best at {sport}.|"
            "Every year there was a contest in {sport} at {town}, and this time {hero} entered.",
            "", "{sport}|{town}",
        ),
        beat(
            "Nobody feared anyone but {rival}, who had won three times.|The favourite was {rival}, proud and well prepared.|Most people had put their money on {rival}.",
            "The favourite is {rival}.", "{rival}",
        ),
        beat(
            "Old {friend} trained {hero} day after day.|In secret {friend} gave {hero} lessons.|Without the advice of {friend} there would have been no hope.",
            "{friend} trains {hero}.", "{friend}",
        ),
        beat(
            "On the day itself there was {trouble}, and many gave up.|Half-way through came {trouble}, and the crowd held its breath.|Then there was {trouble}, just when the contest began.",
            "On the day there is {trouble}.", "{trouble}",
        ),
        beat(
            "In the end {hero} won by a hair and took home {reward}.|When all was over, the judges gave {reward} to {hero}.|To the surprise of all, it was {hero} who carried off {reward}.",
            "{hero} wins {reward}.", "{reward}",
        ),
    ),
    (0, 1, 5), (2, 3),
)

REPAIR = Plot(
    "repair",
    (
        introduction("sees that the {place} is in danger."),
        beat(
            "One spring the old {place} began to crumble.|After a hard winter there were cracks in the {place}.|One day a stone fell from the {place}, and everyone took fright.",
            "", "{place}",
        ),
        beat(
            "The cause was {trouble}, the worst in living memory.|It had been {trouble} that did the damage.|People blamed {trouble}, and they were right.",
            "The cause is {trouble}.", "{trouble}",
        ),
        beat(
            "The mayor, {rival}, refused to pay for the work.|But {rival}, who kept the money of the town, said no.|Only {rival} was against it and locked the purse.",
            "{rival} refuses to pay.", "{rival}",
        ),
        beat(
            "So {hero} sold {thing} in the market to raise the money.|With {thing} from door to door, {hero} earned coin after coin.|To find the money {hero} began to sell {thing}.",
            "{hero} sells {thing} to raise money.", "{thing}",
        ),
        beat(
            "In {month} the work was done, and the {place} stood firm again.|The work was finished in {month}, with music and dancing.|When {month} came, the {place} was as good as new.",
            "In {month} the work is done.", "{month}",
        ),
    ),
    (0, 1, 5), (2, 4),
)

RESCUE = Plot(
    "rescue",
    (
        introduction("finds {animal}."),
        beat(
            "On a walk by the {place} something moved: it was {animal}, hurt and afraid.|One cold day {hero} found {animal} beside the {place}.|"
            "Near the {place} lay {animal} that could not go on.",
            "It lay by the {place}.", "{animal}|{place}",
        ),
        beat(
            "It would eat nothing but {food}.|Day after day {hero} fed it with {food}.|Only with {food} could it be tempted to eat.",
            "It eats only {food}.", "{food}",
        ),
        beat(
            "A neighbour, {rival}, wanted to chase it away.|Not everyone was pleased, and {rival} complained aloud.|But {rival} said that it must go.",
            "{rival} wants it gone.", "{rival}",
        ),
        beat(
            "Then there was {trouble} in the night, and the animal woke the whole street.|One night came {trouble}; its cries warned everybody.|Had it not cried out when there was {trouble}, nobody would have woken.",
            "It warns all of {trouble}.", "{trouble}",
        ),
        beat(
            "Since then it has lived in the {shelter}, and nobody complains.|Now it sleeps in the {shelter} and is everybody's friend.|As thanks it was given the {shelter} for a home.",
            "Now it lives in the {shelter}.", "{shelter}",
        ),
    ),
    (0, 1, 5), (2, 4),
)

QUARREL = Plot(
    "quarrel",
    (
        introduction("quarrels with {rival}."),
        beat(
            "For years there had been a quarrel with {rival} over {thing}.|The trouble began with {rival} and with {thing} that both wanted to sell.|"
            "It was about {thing} that {hero} and {rival} fell out.",
            "They fight over {thing}.", "{rival}|{thing}",
        ),
        beat(
            "They did not even greet each other at the {place}.|At the {place} they shouted so loudly that the windows shook.|Each built a wall towards the {place}.",
            "They shout at the {place}.", "{place}",
        ),
        beat(
            "Then there was {trouble}, and both lost almost everything.|But one night {trouble} came over them both.|It took {trouble} to bring them to their senses.",
            "Then comes {trouble}.", "{trouble}",
        ),
        beat(
            "It was {friend} who made them sit down at one table.|Wise {friend} spoke to each of them in turn.|At last {friend}, a cousin of both, made peace.",
            "{friend} makes peace.", "{friend}",
        ),
        beat(
            "In {month} they opened a shop together in {town}.|When {month} came, they moved to {town} as partners.|Today they work side by side in {town}, and each {month} they hold a feast.",
            "In {month} they become partners in {town}.", "{month}|{town}",
        ),
    ),
    (0, 1, 5), (3, 4),
)

PLOTS = (DELIVERY, SEARCH, CONTEST, REPAIR, RESCUE, QUARREL)
