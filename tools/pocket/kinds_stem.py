"""Minerals, species and stars: what is known about them and how it is said."""

from __future__ import annotations

from tools.pocket import names
from tools.pocket.schema import Kind, attribute

MINERAL = Kind(
    "mineral", "chemistry", "STEM", 65, names.mineral, ("the compound", "the mineral", "this substance"),
    (
        attribute(
            "discoverer", "people", "discoverer",
            clauses="was discovered by {v}|was first isolated by {v}|was identified by {v}|was found in the laboratory of {v}",
            openings="discovered by {v}|first isolated by {v}",
            inverse="{v} discovered {s}|it was {v} who first isolated {s}|{v} is the discoverer of {s}",
            questions="Who discovered {s}?|By whom was {s} discovered?|Who first isolated {s}?|Who is the discoverer of {s}?",
        ),
        attribute(
            "year", "years", "year of discovery",
            clauses="was discovered in {v}|has been known since {v}|was first described in {v}|entered the tables in {v}",
            openings="discovered in {v}|known since {v}",
            inverse="{v} was the year in which {s} was discovered|in {v} the journals first wrote of {s}",
            questions="When was {s} discovered?|In which year was {s} discovered?|Since what year has {s} been known?",
        ),
        attribute(
            "colour", "colours", "colour",
            clauses="is {v}|forms {v} crystals|turns {v} in daylight|leaves {a} streak",
            openings="{v} in colour|{a} powder",
            inverse="{v} is the colour of {s}|{a} streak gives away {s}",
            questions="What colour is {s}?|What is the colour of {s}?|Which colour do crystals of {s} have?",
        ),
        attribute(
            "use", "uses", "main use",
            clauses="is used in {v}|is needed for {v}|finds its use in {v}|has changed the art of {v}",
            openings="used in {v}|of great value in {v}",
            inverse="{v} is the main use of {s}|{v} would be costly without {s}",
            questions="For what is {s} used?|What is the main use of {s}?|In what is {s} used?",
        ),
        attribute(
            "locality", "towns", "chief deposit",
            clauses="is mined near {v}|occurs in the rocks of {v}|is dug near {v}|comes from the hills round {v}",
            openings="mined near {v}|from the hills round {v}",
            inverse="{v} is the place where {s} is mined|the miners of {v} dig for {s}",
            questions="Where is {s} mined?|Near which town is {s} mined?|Where does {s} occur?",
        ),
    ),
)

SPECIES = Kind(
    "species", "biology", "STEM", 65, names.species, ("the species", "the animal", "this creature"),
    (
        attribute(
            "habitat", "habitats", "habitat",
            clauses="lives in {v}|is at home in {v}|hides in {v}|is found only in {v}",
            openings="a creature of {v}|at home in {v}",
            inverse="{v} are the habitat of {s}|whoever walks through {v} may meet {s}",
            questions="Where does {s} live?|What is the habitat of {s}?|Where is {s} at home?",
        ),
        attribute(
            "food", "foods", "food",
            clauses="eats {v}|feeds on {v}|lives on {v}|searches the ground for {v}",
            openings="an eater of {v}|fond of {v}",
            inverse="{v} are the food of {s}|where {v} are plentiful, so is {s}",
            questions="What does {s} eat?|On what does {s} feed?|What is the food of {s}?",
        ),
        attribute(
            "describer", "people", "first describer",
            clauses="was first described by {v}|was named by {v}|was drawn from life by {v}|was classified by {v}",
            openings="first described by {v}|named by {v}",
            inverse="{v} first described {s}|it was {v} who named {s}|{v} was the first to describe {s}",
            questions="Who first described {s}?|By whom was {s} described?|Who named {s}?|Who classified {s}?",
        ),
        attribute(
            "season", "seasons", "breeding month",
            clauses="breeds in {v}|raises its young in {v}|builds its nest in {v}|looks for a mate in {v}",
            openings="breeding in {v}|most often seen in {v}",
            inverse="{v} is the month in which {s} breeds|in {v} one hears the call of {s}",
            questions="When does {s} breed?|In which month does {s} breed?|What is the breeding month of {s}?",
        ),
        attribute(
            "region", "regions", "range",
            clauses="is native to {v}|occurs in {v}|never leaves {v}|is protected by law in {v}",
            openings="native to {v}|a pride of {v}",
            inverse="{v} is the land of {s}|the forests and fields of {v} shelter {s}",
            questions="In which land does {s} occur?|Where is {s} native?|To which land is {s} native?",
        ),
    ),
)

STAR = Kind(
    "star", "astronomy", "STEM", 65, names.star, ("the star", "the object", "this sun"),
    (
        attribute(
            "discoverer", "people", "discoverer",
            clauses="was discovered by {v}|was first catalogued by {v}|was spotted by {v}|was charted by {v}",
            openings="discovered by {v}|first charted by {v}",
            inverse="{v} discovered {s}|it was {v} who first charted {s}|{v} is the discoverer of {s}",
            questions="Who discovered {s}?|By whom was {s} discovered?|Who first charted {s}?|Which astronomer discovered {s}?",
        ),
        attribute(
            "year", "years", "year of discovery",
            clauses="was discovered in {v}|was first seen in {v}|has been on the charts since {v}|was catalogued in {v}",
            openings="discovered in {v}|on the charts since {v}",
            inverse="{v} was the year in which {s} was discovered|in {v} a telescope first found {s}",
            questions="When was {s} discovered?|In which year was {s} discovered?|In what year was {s} first seen?",
        ),
        attribute(
            "constellation", "constellations", "constellation",
            clauses="lies in the {v}|belongs to the constellation of the {v}|shines in the {v}|marks a corner of the {v}",
            openings="a star of the {v}|part of the {v}",
            inverse="the {v} is the constellation of {s}|the {v} would be dimmer without {s}",
            questions="In which constellation does {s} lie?|To which constellation does {s} belong?|What is the constellation of {s}?",
        ),
        attribute(
            "colour", "colours", "colour",
            clauses="glows {v}|shines with {a} light|appears {v} to the eye|has {a} tint",
            openings="{v} to the eye|glowing {v}",
            inverse="{v} is the colour of {s}|{a} tint marks {s}",
            questions="What colour is {s}?|What is the colour of {s}?|In which colour does {s} shine?",
        ),
        attribute(
            "companions", "companions", "known companions",
            clauses="is surrounded by {v}|is known for its {v}|has {v} around it|puzzles astronomers with its {v}",
            openings="surrounded by {v}|known for its {v}",
            inverse="{v} have been seen around {s}|the {v} around {s} can be photographed",
            questions="What surrounds {s}?|What has been seen around {s}?|For what is {s} known?",
        ),
    ),
)

KINDS = (MINERAL, SPECIES, STAR)
