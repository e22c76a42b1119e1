"""Novels, paintings and operas: what is known about them and how it is said."""

from __future__ import annotations

from tools.pocket import names
from tools.pocket.schema import Kind, attribute

NOVEL = Kind(
    "novel", "literature", "humanities", 65, names.novel, ("the novel", "the book", "this story"),
    (
        attribute(
            "author", "people", "author",
            clauses="was written by {v}|came from the pen of {v}|is a work of {v}|was composed by the novelist {v}",
            openings="written by {v}|a book by {v}",
            inverse="{v} wrote {s}|{v} is the author of {s}|it was {v} who wrote {s}",
            questions="Who wrote {s}?|Who is the author of {s}?|Which writer wrote {s}?|By whom was {s} written?",
        ),
        attribute(
            "year", "years", "year of publication",
            clauses="was published in {v}|first appeared in {v}|reached its readers in {v}|went to print in {v}",
            openings="published in {v}|first printed in {v}",
            inverse="{v} was the year in which {s} was published|in {v} readers first held {s} in their hands",
            questions="When was {s} published?|In which year was {s} published?|In what year did {s} first appear?",
        ),
        attribute(
            "genre", "genres", "genre",
            clauses="belongs to the {v} genre|is usually shelved under {v}|is read as {a} story|is praised for its {v} style",
            openings="{a} story at heart|a fine example of the {v} genre",
            inverse="{v} is the genre to which {s} belongs|lovers of the {v} genre know {s} well",
            questions="What is the genre of {s}?|To which genre does {s} belong?|What kind of story is {s}?",
        ),
        attribute(
            "setting", "towns", "setting",
            clauses="is set in {v}|takes place in {v}|unfolds in the streets of {v}|plays out in {v}",
            openings="set in {v}|with its action in {v}",
            inverse="{v} is the town in which {s} is set|the streets of {v} are the scene of {s}",
            questions="Where is {s} set?|In which town is {s} set?|Where does {s} take place?|What is the setting of {s}?",
        ),
        attribute(
            "theme", "themes", "main theme",
            clauses="deals with {v}|is chiefly about {v}|has much to say about {v}|turns on a question of {v}",
            openings="a meditation on {v}|concerned above all with {v}",
            inverse="{v} is the main theme of {s}|few books treat {v} as {s} does",
            questions="What is {s} about?|What is the main theme of {s}?|What does {s} deal with?",
        ),
    ),
)

PAINTING = Kind(
    "painting", "art", "humanities", 65, names.painting, ("the painting", "the picture", "this work"),
    (
        attribute(
            "painter", "people", "painter",
            clauses="was painted by {v}|is a picture by {v}|was made by the artist {v}|is signed by {v}",
            openings="painted by {v}|a work of {v}",
            inverse="{v} painted {s}|it was {v} who painted {s}|{v} is the artist behind {s}",
            questions="Who painted {s}?|Which artist painted {s}?|By whom was {s} painted?|Who is the painter of {s}?",
        ),
        attribute(
            "year", "years", "year of completion",
            clauses="was finished in {v}|dates from {v}|was completed in {v}|received its last brush stroke in {v}",
            openings="finished in {v}|dated {v}",
            inverse="{v} was the year in which {s} was finished|in {v} the last layer of {s} dried",
            questions="When was {s} finished?|In which year was {s} completed?|From which year does {s} date?",
        ),
        attribute(
            "medium", "media", "support",
            clauses="is painted on {v}|was made on {v}|owes its surface to {v}|survives on a ground of {v}",
            openings="painted on {v}|a work on {v}",
            inverse="{v} is the material on which {s} is painted|only {v} would do for {s}",
            questions="On what is {s} painted?|On which material was {s} made?|What is the support of {s}?",
        ),
        attribute(
            "gallery", "towns", "home gallery",
            clauses="hangs in the gallery of {v}|can be seen in {v}|belongs to the museum of {v}|is kept in {v}",
            openings="on display in {v}|now kept in {v}",
            inverse="the gallery of {v} owns {s}|{v} is the town where {s} hangs",
            questions="Where does {s} hang?|In which town can {s} be seen?|Which town's gallery owns {s}?",
        ),
        attribute(
            "motif", "motifs", "motif",
            clauses="shows {a}|depicts {a}|presents {a} in strong colours|catches {a} in evening light",
            openings="a view of {a}|a study of {a}",
            inverse="{a} is what {s} shows|{a} fills the canvas of {s}",
            questions="What does {s} show?|What is depicted in {s}?|What is the motif of {s}?",
        ),
    ),
)

OPERA = Kind(
    "opera", "music", "humanities", 65, names.opera, ("the opera", "the piece", "this composition"),
    (
        attribute(
            "composer", "people", "composer",
            clauses="was composed by {v}|has music by {v}|is the work of {v}|was scored by {v}",
            openings="composed by {v}|with music by {v}",
            inverse="{v} composed {s}|it was {v} who wrote the music of {s}|{v} is the composer of {s}",
            questions="Who composed {s}?|Which composer wrote {s}?|By whom was {s} composed?|Who is the composer of {s}?",
        ),
        attribute(
            "year", "years", "year of the first performance",
            clauses="was first performed in {v}|had its first night in {v}|came to the stage in {v}|was heard for the first time in {v}",
            openings="first performed in {v}|heard since {v}",
            inverse="{v} saw the first night of {s}|{v} was the year in which {s} was first performed",
            questions="When was {s} first performed?|In which year was the first night of {s}?|In what year did {s} come to the stage?",
        ),
        attribute(
            "premiere", "towns", "place of the premiere",
            clauses="had its premiere in {v}|was first staged in {v}|opened in the theatre of {v}|was given to the public in {v}",
            openings="first staged in {v}|premiered in {v}",
            inverse="{v} hosted the premiere of {s}|the people of {v} were the first to hear {s}",
            questions="Where was {s} first staged?|In which town did {s} have its premiere?|Which town hosted the premiere of {s}?",
        ),
        attribute(
            "instrument", "instruments", "solo instrument",
            clauses="opens with a solo for the {v}|gives its finest tune to the {v}|is known for its {v} part|lets the {v} lead",
            openings="famous for its {v} solo|a favourite of {v} players",
            inverse="the {v} has the great solo in {s}|players of the {v} all practise {s}",
            questions="Which instrument has the solo in {s}?|Which instrument leads in {s}?|For which instrument is the solo in {s}?",
        ),
        attribute(
            "subject", "themes", "subject",
            clauses="tells of {v}|is a drama of {v}|sings of {v}|takes {v} as its subject",
            openings="a tale of {v}|a drama of {v}",
            inverse="{v} is the subject of {s}|no other opera treats {v} like {s}",
            questions="What is the subject of {s}?|What does {s} tell of?|Of what does {s} sing?",
        ),
    ),
)

KINDS = (NOVEL, PAINTING, OPERA)
