"""Values that attributes take when they are ordinary words: crafts, colours, foods, places to live.

Words of one list differ in their first letters, so that the options of a multiple-choice question can be told apart
by their first token. Invented words (towns, rivers, regions) and persons come from elsewhere.
"""

from __future__ import annotations

from tools.pocket import names

FIRST_YEAR, LAST_YEAR = 1750, 1899

WORDS: dict[str, tuple[str, ...]] = {
    "professions": tuple(
        "architect baker botanist carpenter chemist composer dentist diplomat engineer farmer fisherman gardener geologist "
        "historian innkeeper inventor jeweller judge lawyer librarian locksmith mathematician merchant midwife miller "
        "musician nurse painter philosopher pilot poet potter printer sailor sculptor shepherd singer surgeon tailor "
        "teacher weaver".split()
    ),
    "pastimes": tuple(
        "archery astronomy beekeeping birdwatching boxing chess cooking cycling dancing embroidery fencing fishing "
        "gardening gliding hiking juggling knitting mountaineering painting photography pottery riding rowing sailing "
        "skating swimming tennis whittling wrestling yodelling".split()
    ),
    "prizes": tuple(
        "Amber Birch Comet Diamond Eagle Falcon Granite Hawthorn Ivory Juniper Kestrel Laurel Marble Nightingale Obsidian "
        "Pearl Quartz Rose Sapphire Thistle Umber Violet Walnut Zephyr".split()
    ),
    "genres": tuple(
        "adventure allegory ballad chronicle comedy detective epic fable fantasy ghost gothic mystery pastoral romance "
        "satire thriller tragedy travel utopian western".split()
    ),
    "themes": tuple(
        "ambition betrayal courage duty envy exile faith famine forgiveness freedom friendship greed grief guilt honour "
        "inheritance jealousy justice loneliness loyalty marriage memory migration pride rebellion revenge sacrifice "
        "shipwreck solitude temptation war youth".split()
    ),
    "media": tuple(
        "bark bronze canvas cedar charcoal clay copper enamel glass ivory lead linen marble oak paper parchment pearwood "
        "plaster porcelain silk slate tin velvet wax".split()
    ),
    "motifs": tuple(
        "autumn bridge cathedral drought eclipse ferry flood funeral harvest hunt market moonlight orchard procession "
        "rainbow regatta ruins siege snowstorm sunrise thunder vineyard wedding windmill".split()
    ),
    "instruments": tuple(
        "accordion bagpipe banjo bassoon bugle celesta cello clarinet cornet dulcimer fiddle flute guitar harp harpsichord "
        "horn lute lyre mandolin oboe organ piano piccolo recorder trombone trumpet tuba viola xylophone zither".split()
    ),
    "products": tuple(
        "anchors barrels bells blankets bricks buttons candles carpets chairs clocks compasses dyes fans globes gloves "
        "hats helmets ink kettles knives lamps lenses locks matches mirrors needles nets paint pencils pumps ropes saddles "
        "scales shoes soap spoons stoves telescopes tiles toys umbrellas wheels".split()
    ),
    "emblems": tuple(
        "anvil arrow bee cock dolphin eagle fox griffin hammer key lion mermaid oak pelican rose ship squirrel sun swan "
        "tiger unicorn wolf".split()
    ),
    "matters": tuple(
        "borders canals coinage fishing forestry grazing harbours hunting immigration lighthouses mining patents postage "
        "prisoners quarantine railways refugees slavery tariffs taxes telegraphs tolls trade whaling".split()
    ),
    "landmarks": tuple(
        "aqueduct arch belfry bridge castle cave citadel dam fountain gallows gatehouse hospital lighthouse maze mill "
        "monastery monument observatory obelisk palace quarry shrine spring theatre tower tunnel viaduct waterfall well "
        "zoo".split()
    ),
    "crafts": tuple(
        "baskets beer butter cheese cider cloth figs flour fur honey horses lace lavender leather linen malt mustard "
        "oysters pears plums ponies pots salt sausages sheep timber tobacco tulips vinegar wine wool".split()
    ),
    "colours": tuple(
        "amber azure beige black blue brown coral crimson cream golden green grey indigo ivory lilac maroon ochre olive "
        "orange pink purple rust scarlet silver teal turquoise violet white yellow".split()
    ),
    "uses": tuple(
        "batteries bleach brakes cement cosmetics dentistry dyeing explosives fertiliser filters fireworks glazing "
        "insulation jewellery lubrication magnets medicine mirrors optics pigments plumbing polishing preservation "
        "refrigeration rubber soldering tanning varnish watches welding".split()
    ),
    "habitats": tuple(
        "bogs canyons cliffs coasts deserts dunes estuaries fens forests glaciers grassland gullies heaths hedges islands "
        "jungles lagoons lakes marshes meadows mudflats orchards plains ponds reefs ridges swamps tundra valleys "
        "woodland".split()
    ),
    "foods": tuple(
        "acorns ants bark berries carrion crabs eggs fish frogs fungi grass grubs leaves lichen mice mosquitoes moss "
        "nectar nuts pollen roots sap seeds shrimps slugs snails spiders termites wasps worms".split()
    ),
    "seasons": tuple(
        "January February March April May June July August September October November December".split()
    ),
    "constellations": tuple(
        "Anchor Archer Bear Cart Chariot Compass Crown Dolphin Dragon Eagle Fisherman Goat Hammer Hunter Kite Ladder "
        "Lantern Loom Lyre Owl Peacock Plough Raven Sceptre Serpent Shepherd Spider Swan Throne Weaver".split()
    ),
    "companions": tuple(
        "asteroids belts clouds comets dust flares halos jets moons nebulae planets plumes pulsars quasars rings shells "
        "spots storms tails veils".split()
    ),
    "sports": tuple(
        "archery badminton baseball basketball billiards bowls boxing cricket croquet curling cycling fencing football "
        "golf handball hockey judo lacrosse netball polo rowing rugby skiing squash tennis volleyball wrestling".split()
    ),
    "grounds": tuple(
        "Abbey Barrack Castle Cobbler Ditch Ferry Garden Hilltop Lakeside Market Meadow Orchard Parkway Quarry Riverside "
        "Station Tannery University Vineyard Windmill".split()
    ),
    "ingredients": tuple(
        "almonds apples apricots bacon barley beans beetroot cabbage carrots cherries chestnuts chicken cod crab duck eel "
        "goose ham hazelnuts herring lamb leeks lentils mushrooms mussels oats onions peas pork potatoes pumpkin quinces "
        "rabbit rice salmon spinach trout turnips veal venison".split()
    ),
    "spices": tuple(
        "aniseed basil caraway cardamom chilli cinnamon cloves coriander cumin dill fennel garlic ginger horseradish mace "
        "marjoram mint mustard nutmeg oregano paprika parsley pepper rosemary saffron sage tarragon thyme turmeric "
        "vanilla".split()
    ),
    "occasions": tuple(
        "baptisms birthdays carnival christenings elections Easter fairs funerals graduations harvest housewarmings "
        "jubilees launches midsummer midwinter parades pilgrimages regattas reunions weddings".split()
    ),
}


def pool(name: str) -> tuple[str, ...]:
    """All values of a pool whose values are not persons."""
    if name == "years":
        return tuple(str(year) for year in range(FIRST_YEAR, LAST_YEAR + 1))
    return WORDS[name] if name in WORDS else names.pools()[name]
