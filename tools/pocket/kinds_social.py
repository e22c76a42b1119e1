"""Companies, treaties and villages: what is known about them and how it is said."""

from __future__ import annotations

from tools.pocket import names
from tools.pocket.schema import Kind, attribute

COMPANY = Kind(
    "company", "economics", "social sciences", 65, names.company, ("the company", "the firm", "this business"),
    (
        attribute(
            "founder", "people", "founder",
            clauses="was founded by {v}|was set up by {v}|goes back to {v}|was the idea of {v}",
            openings="founded by {v}|once a workshop of {v}",
            inverse="{v} founded {s}|it was {v} who set up {s}|{v} is the founder of {s}",
            questions="Who founded {s}?|Who is the founder of {s}?|By whom was {s} founded?|Who set up {s}?",
        ),
        attribute(
            "seat", "towns", "headquarters",
            clauses="has its headquarters in {v}|is based in {v}|runs its offices from {v}|keeps its books in {v}",
            openings="based in {v}|with its head office in {v}",
            inverse="{v} is the home of {s}|{v} is where {s} has its headquarters",
            questions="Where is {s} based?|In which town is {s} based?|Where are the headquarters of {s}?",
        ),
        attribute(
            "year", "years", "founding year",
            clauses="was founded in {v}|opened its doors in {v}|began to trade in {v}|was entered in the register in {v}",
            openings="founded in {v}|in business since {v}",
            inverse="{v} was the year in which {s} was founded|in {v} the first workers entered {s}",
            questions="When was {s} founded?|In which year was {s} founded?|In what year did {s} begin to trade?",
        ),
        attribute(
            "product", "products", "main product",
            clauses="makes {v}|is known for its {v}|produces {v}|earns its money with {v}",
            openings="a maker of {v}|known far and wide for its {v}",
            inverse="{v} are the main product of {s}|whoever buys {v} soon hears of {s}",
            questions="What does {s} make?|What is the main product of {s}?|What does {s} produce?|For what is {s} known?",
        ),
        attribute(
            "emblem", "emblems", "emblem",
            clauses="has {a} as its emblem|prints {a} on every box|shows {a} above its gate|uses the sign of the {v}",
            openings="trading under the sign of the {v}|recognised by the {v} on its gate",
            inverse="the {v} is the emblem of {s}|the sign of the {v} belongs to {s}",
            questions="What is the emblem of {s}?|Which emblem does {s} use?|What does {s} show above its gate?",
        ),
    ),
)

TREATY = Kind(
    "treaty", "politics", "social sciences", 65, names.treaty, ("the treaty", "the agreement", "this document"),
    (
        attribute(
            "negotiator", "people", "chief negotiator",
            clauses="was negotiated by {v}|owes its wording to {v}|was drafted by {v}|was brought about by {v}",
            openings="negotiated by {v}|drafted by {v}",
            inverse="{v} negotiated {s}|it was {v} who drafted {s}|{v} was the chief negotiator of {s}",
            questions="Who negotiated {s}?|Who drafted {s}?|Who was the chief negotiator of {s}?|By whom was {s} negotiated?",
        ),
        attribute(
            "year", "years", "year of signing",
            clauses="was signed in {v}|took effect in {v}|became law in {v}|received its seals in {v}",
            openings="signed in {v}|in force since {v}",
            inverse="{v} was the year in which {s} was signed|in {v} the envoys put their seals to {s}",
            questions="When was {s} signed?|In which year was {s} signed?|In what year did {s} become law?",
        ),
        attribute(
            "matter", "matters", "matter",
            clauses="regulates {v}|sets out rules on {v}|settled a quarrel over {v}|is concerned with {v}",
            openings="an agreement on {v}|drawn up to regulate {v}",
            inverse="{v} is the matter of {s}|rules on {v} go back to {s}",
            questions="What does {s} regulate?|What is the matter of {s}?|With what is {s} concerned?",
        ),
        attribute(
            "region", "regions", "main beneficiary",
            clauses="chiefly benefited {v}|brought great profit to {v}|was a victory for {v}|is still celebrated in {v}",
            openings="a gift to {v}|much to the advantage of {v}",
            inverse="{v} gained the most from {s}|{v} is the land that profited from {s}",
            questions="Which land gained the most from {s}?|Which land did {s} benefit?|Who was the main beneficiary of {s}?",
        ),
        attribute(
            "archive", "rivers", "place of the ceremony",
            clauses="was sealed on a bridge over the {v}|was read aloud on the banks of the {v}|was agreed beside the {v}",
            openings="sealed beside the {v}|agreed on the banks of the {v}",
            inverse="the {v} is the river beside which {s} was sealed|boats on the {v} saluted {s}",
            questions="Beside which river was {s} sealed?|On the banks of which river was {s} agreed?",
        ),
    ),
)

VILLAGE = Kind(
    "village", "geography", "social sciences", 65, names.village, ("the village", "the settlement", "this place"),
    (
        attribute(
            "region", "regions", "region",
            clauses="lies in {v}|is a village in {v}|belongs to {v}|is found in the hills of {v}",
            openings="a village of {v}|situated in {v}",
            inverse="{v} is the region in which {s} lies|travellers in {v} may pass through {s}",
            questions="In which region does {s} lie?|Where is {s}?|To which region does {s} belong?",
        ),
        attribute(
            "river", "rivers", "river",
            clauses="stands on the {v}|was built on the banks of the {v}|takes its water from the {v}|looks down on the {v}",
            openings="built beside the {v}|standing on the {v}",
            inverse="the {v} flows past {s}|the {v} is the river of {s}",
            questions="On which river does {s} stand?|Which river flows past {s}?|What is the river of {s}?",
        ),
        attribute(
            "craft", "crafts", "main produce",
            clauses="sells {v}|is famous for its {v}|lives on {v}|sends {v} to every market",
            openings="famous for its {v}|a place of good {v}",
            inverse="{v} from {s} can be bought in every market|the best {v} come from {s}",
            questions="What does {s} sell?|For what is {s} famous?|What is the main produce of {s}?",
        ),
        attribute(
            "landmark", "landmarks", "landmark",
            clauses="has an old {v}|is proud of its {v}|is visited for its {v}|has built its square round the {v}",
            openings="proud of its {v}|gathered round its old {v}",
            inverse="the {v} is the landmark of {s}|the old {v} draws visitors to {s}",
            questions="What is the landmark of {s}?|What can visitors see in {s}?|Of which landmark is {s} proud?",
        ),
        attribute(
            "year", "years", "year of the charter",
            clauses="received its charter in {v}|has been a parish since {v}|was rebuilt in {v}|was first mentioned in {v}",
            openings="chartered in {v}|a parish since {v}",
            inverse="{v} was the year in which {s} received its charter|in {v} the bells of {s} rang for its charter",
            questions="When did {s} receive its charter?|In which year did {s} receive its charter?|Since what year has {s} had its charter?",
        ),
    ),
)

KINDS = (COMPANY, TREATY, VILLAGE)
