"""People, teams and dishes: what is known about them and how it is said."""

from __future__ import annotations

from tools.pocket import names
from tools.pocket.schema import Kind, attribute

PERSON = Kind(
    "person", "biography", "other", 285, names.person, ("the {profession}",),
    (
        attribute(
            "birth_town", "towns", "birthplace",
            clauses="was born in {v}|came into the world in {v}|is a native of {v}|spent the first years of life in {v}",
            openings="born in {v}|a native of {v}",
            inverse="{v} is the birthplace of {s}|it was in {v} that {s} was born",
            questions="Where was {s} born?|In which town was {s} born?|What is the birthplace of {s}?|Which town is the birthplace of {s}?",
        ),
        attribute(
            "birth_year", "years", "year of birth",
            clauses="was born in the year {v}|entered the registers in {v}|has {v} as year of birth|was christened in {v}",
            openings="born in {v}|a child of the year {v}",
            inverse="{v} was the year in which {s} was born|in {v} a bell rang for the birth of {s}",
            questions="When was {s} born?|In which year was {s} born?|What is the year of birth of {s}?",
        ),
        attribute(
            "profession", "professions", "profession",
            clauses="worked as {a}|earned a living as {a}|was {a} by trade|trained as {a}",
            openings="{a} by trade|trained as {a}",
            inverse="{a} is what {s} became|there was never a better {v} than {s}",
            questions="What was the profession of {s}?|What did {s} work as?|What was {s} by trade?|How did {s} earn a living?",
        ),
        attribute(
            "home_town", "towns", "home",
            clauses="settled in {v}|lived in {v}|kept a house in {v}|made a home in {v}",
            openings="long settled in {v}|a citizen of {v}",
            inverse="{v} is the town where {s} settled|a plaque in {v} marks the house of {s}",
            questions="Where did {s} settle?|In which town did {s} live?|Where was the home of {s}?",
        ),
        attribute(
            "mentor", "people", "mentor",
            clauses="learned from {v}|was taught by {v}|was a pupil of {v}|owed much to the lessons of {v}",
            openings="a pupil of {v}|taught by {v}",
            inverse="{v} taught {s}|it was {v} who taught {s}|{v} was the mentor of {s}",
            questions="Who taught {s}?|Who was the mentor of {s}?|Whose pupil was {s}?|From whom did {s} learn?",
        ),
        attribute(
            "prize", "prizes", "prize",
            clauses="received the {v} Medal|won the {v} Medal|was honoured with the {v} Medal|wore the {v} Medal with pride",
            openings="holder of the {v} Medal|honoured with the {v} Medal",
            inverse="the {v} Medal went to {s}|the {v} Medal was given to {s}",
            questions="Which medal did {s} receive?|Which medal did {s} win?|Which medal went to {s}?",
        ),
        attribute(
            "pastime", "pastimes", "pastime",
            clauses="loved {v}|spent every free day on {v}|was fond of {v}|never gave up {v}",
            openings="a lover of {v}|devoted to {v}",
            inverse="{v} was the pastime of {s}|{v} filled the free hours of {s}",
            questions="What was the pastime of {s}?|What did {s} love?|Of what was {s} fond?|How did {s} spend free days?",
        ),
    ),
)

TEAM = Kind(
    "team", "sports", "other", 65, names.team, ("the team", "the club", "this side"),
    (
        attribute(
            "sport", "sports", "sport",
            clauses="plays {v}|competes in {v}|made its name in {v}|trains for {v} all year",
            openings="a {v} club|famous in {v}",
            inverse="{v} is the sport of {s}|friends of {v} know {s}",
            questions="Which sport does {s} play?|What is the sport of {s}?|In which sport does {s} compete?",
        ),
        attribute(
            "captain", "people", "captain",
            clauses="is led by {v}|has {v} as captain|was captained by {v}|follows its captain {v}",
            openings="led by {v}|with {v} as captain",
            inverse="{v} leads {s}|{v} is the captain of {s}|it is {v} who leads {s}",
            questions="Who leads {s}?|Who is the captain of {s}?|By whom is {s} led?",
        ),
        attribute(
            "colour", "colours", "colour",
            clauses="wears {v}|plays in {v} shirts|has chosen {v} for its flag|is seen from afar in its {v} shirts",
            openings="dressed in {v}|in {v} shirts",
            inverse="{v} is the colour of {s}|{v} shirts are the mark of {s}",
            questions="Which colour does {s} wear?|What is the colour of {s}?|In which colour does {s} play?",
        ),
        attribute(
            "year", "years", "founding year",
            clauses="was founded in {v}|played its first match in {v}|joined the league in {v}|has existed since {v}",
            openings="founded in {v}|in the league since {v}",
            inverse="{v} was the year in which {s} was founded|in {v} the first match of {s} was played",
            questions="When was {s} founded?|In which year was {s} founded?|Since what year has {s} existed?",
        ),
        attribute(
            "ground", "grounds", "home ground",
            clauses="plays at {v} Field|has its home at {v} Field|fills {v} Field every week|trains at {v} Field",
            openings="at home on {v} Field|the pride of {v} Field",
            inverse="{v} Field is the home of {s}|{v} Field belongs to {s}",
            questions="On which field does {s} play?|What is the home ground of {s}?|Which field is the home of {s}?",
        ),
    ),
)

DISH = Kind(
    "dish", "cuisine", "other", 65, names.dish, ("the dish", "the recipe", "this meal"),
    (
        attribute(
            "ingredient", "ingredients", "main ingredient",
            clauses="is made with {v}|is based on {v}|needs plenty of {v}|would be nothing without {v}",
            openings="made with {v}|full of {v}",
            inverse="{v} can be tasted in every spoon of {s}|a cook who has {v} can make {s}",
            questions="With what is {s} made?|What is the main ingredient of {s}?|What does {s} need?",
        ),
        attribute(
            "spice", "spices", "spice",
            clauses="is seasoned with {v}|gets its taste from {v}|smells of {v}|is finished with {v}",
            openings="seasoned with {v}|smelling of {v}",
            inverse="{v} is the spice of {s}|{v} gives {s} its taste",
            questions="With what is {s} seasoned?|What is the spice of {s}?|Which spice gives {s} its taste?",
        ),
        attribute(
            "origin", "towns", "place of origin",
            clauses="comes from {v}|was first cooked in {v}|is a speciality of {v}|is served in every inn of {v}",
            openings="a speciality of {v}|first cooked in {v}",
            inverse="{v} is the home of {s}|the inns of {v} serve {s}",
            questions="Where does {s} come from?|From which town does {s} come?|In which town was {s} first cooked?",
        ),
        attribute(
            "occasion", "occasions", "occasion",
            clauses="is eaten at {v}|is cooked for {v}|is never missing at {v}|is kept for {v}",
            openings="eaten at {v}|a favourite at {v}",
            inverse="{v} is the time for {s}|at {v} every table has {s}",
            questions="When is {s} eaten?|At what occasion is {s} eaten?|For what occasion is {s} cooked?",
        ),
        attribute(
            "creator", "people", "creator",
            clauses="was created by {v}|was invented by the cook {v}|was put on paper by {v}|is ascribed to {v}",
            openings="created by {v}|invented by {v}",
            inverse="{v} created {s}|it was {v} who invented {s}|{v} is the creator of {s}",
            questions="Who created {s}?|Who invented {s}?|By whom was {s} created?|Who is the creator of {s}?",
        ),
    ),
)

KINDS = (PERSON, TEAM, DISH)
