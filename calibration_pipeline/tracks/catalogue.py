"""The Cup tracks since 2013, as data: archetype, length, scheduled laps, eras, names and feed ids.

One entry is one track and layout over one era; a new era begins where the track itself changed.
Lengths are those of the official box scores, in miles; laps are those of the track's usual (or only)
race. A track that fits no archetype, such as dirt, has `archetype=None`.
"""

from dataclasses import dataclass

from calibration_pipeline.archetypes import Archetype

CATALOGUE_START = 2013

SUPERSPEEDWAY = Archetype.SUPERSPEEDWAY
INTERMEDIATE = Archetype.INTERMEDIATE
SHORT_TRACK = Archetype.SHORT_TRACK
ROAD_COURSE = Archetype.ROAD_COURSE


@dataclass(frozen=True)
class ConstraintSpec:
    """One entry of the catalogue, before it is checked and compiled.

    Attributes
    ----------
    track_id : str
        Track and layout, lower case with underscores; entries of several eras share it.
    name : str
        Common name.
    archetype : Archetype or None
        Archetype; None if the track fits none.
    length_miles : float
        Length of a lap, miles.
    scheduled_laps : int
        Laps of a usual race.
    first_season, last_season : int, int or None
        The era, both ends included; None leaves it open.
    aliases : tuple[str, ...]
        Other names that sources use. Case, accents and punctuation do not matter.
    feed_ids : tuple[int, ...]
        Ids in NASCAR's timing feed, as far as they are known.
    """

    track_id: str
    name: str
    archetype: Archetype | None
    length_miles: float
    scheduled_laps: int
    first_season: int = CATALOGUE_START
    last_season: int | None = None
    aliases: tuple[str, ...] = ()
    feed_ids: tuple[int, ...] = ()


# fmt: off
CATALOGUE: tuple[ConstraintSpec, ...] = (
    # Superspeedways
    ConstraintSpec("daytona", "Daytona International Speedway", SUPERSPEEDWAY, 2.5, 200,
        feed_ids=(105,), aliases=("Daytona", "Daytona Oval", "Daytona International Speedway Oval")),
    ConstraintSpec("talladega", "Talladega Superspeedway", SUPERSPEEDWAY, 2.66, 188,
        feed_ids=(82,), aliases=("Talladega",)),
    # Repaved and banked more steeply for 2022: it races as a superspeedway since.
    ConstraintSpec("atlanta", "Atlanta Motor Speedway", INTERMEDIATE, 1.54, 325,
        last_season=2021, feed_ids=(111,), aliases=("Atlanta",)),
    ConstraintSpec("atlanta", "Atlanta Motor Speedway", SUPERSPEEDWAY, 1.54, 260,
        first_season=2022, feed_ids=(111,),
        aliases=("Atlanta", "EchoPark Speedway", "EchoPark Speedway Atlanta",
            "EchoPark Speedway (Atlanta Motor Speedway)")),
    # Intermediates
    ConstraintSpec("auto_club", "Auto Club Speedway", INTERMEDIATE, 2.0, 200,
        feed_ids=(38,),
        aliases=("Auto Club", "California Speedway", "California",
            "Auto Club Speedway of Southern California", "Fontana")),
    ConstraintSpec("charlotte", "Charlotte Motor Speedway", INTERMEDIATE, 1.5, 400,
        feed_ids=(162,), aliases=("Charlotte", "Charlotte Oval", "Charlotte Motor Speedway Oval")),
    ConstraintSpec("chicagoland", "Chicagoland Speedway", INTERMEDIATE, 1.5, 267, aliases=("Chicagoland",)),
    ConstraintSpec("darlington", "Darlington Raceway", INTERMEDIATE, 1.366, 367,
        feed_ids=(4,), aliases=("Darlington",)),
    ConstraintSpec("homestead", "Homestead-Miami Speedway", INTERMEDIATE, 1.5, 267,
        feed_ids=(40,), aliases=("Homestead", "Homestead-Miami", "Miami")),
    ConstraintSpec("indianapolis", "Indianapolis Motor Speedway", INTERMEDIATE, 2.5, 160,
        feed_ids=(123,),
        aliases=("Indianapolis", "Indy", "Indianapolis Oval", "Indianapolis Motor Speedway Oval")),
    ConstraintSpec("kansas", "Kansas Speedway", INTERMEDIATE, 1.5, 267, feed_ids=(41,), aliases=("Kansas",)),
    ConstraintSpec("kentucky", "Kentucky Speedway", INTERMEDIATE, 1.5, 267,
        feed_ids=(61,), aliases=("Kentucky",)),
    ConstraintSpec("las_vegas", "Las Vegas Motor Speedway", INTERMEDIATE, 1.5, 267,
        feed_ids=(42,), aliases=("Las Vegas",)),
    ConstraintSpec("michigan", "Michigan International Speedway", INTERMEDIATE, 2.0, 200,
        feed_ids=(133,), aliases=("Michigan", "Michigan Speedway")),
    ConstraintSpec("nashville", "Nashville Superspeedway", INTERMEDIATE, 1.333, 300,
        feed_ids=(52,), aliases=("Nashville",)),
    ConstraintSpec("pocono", "Pocono Raceway", INTERMEDIATE, 2.5, 160,
        feed_ids=(198,), aliases=("Pocono", "Pocono International Raceway")),
    ConstraintSpec("texas", "Texas Motor Speedway", INTERMEDIATE, 1.5, 334,
        feed_ids=(43,), aliases=("Texas",)),
    ConstraintSpec("gateway", "World Wide Technology Raceway", INTERMEDIATE, 1.25, 240,
        aliases=("World Wide Technology Raceway at Gateway", "WWT Raceway", "WWT Raceway at Gateway",
            "World Wide Technology", "Gateway Motorsports Park", "Gateway International Raceway", "Gateway",
            "St. Louis")),
    # Short tracks
    ConstraintSpec("bristol", "Bristol Motor Speedway", SHORT_TRACK, 0.533, 500,
        feed_ids=(14,), aliases=("Bristol", "Bristol Concrete", "Bristol Motor Speedway Concrete")),
    ConstraintSpec("dover", "Dover Motor Speedway", SHORT_TRACK, 1.0, 400,
        feed_ids=(103,),
        aliases=("Dover International Speedway", "Dover Downs International Speedway", "Dover")),
    ConstraintSpec("iowa", "Iowa Speedway", SHORT_TRACK, 0.875, 350, aliases=("Iowa",)),
    ConstraintSpec("martinsville", "Martinsville Speedway", SHORT_TRACK, 0.526, 500,
        feed_ids=(22,), aliases=("Martinsville",)),
    ConstraintSpec("new_hampshire", "New Hampshire Motor Speedway", SHORT_TRACK, 1.058, 301,
        feed_ids=(138,), aliases=("New Hampshire International Speedway", "New Hampshire", "Loudon", "NHMS")),
    ConstraintSpec("north_wilkesboro", "North Wilkesboro Speedway", SHORT_TRACK, 0.625, 450,
        aliases=("North Wilkesboro",)),
    ConstraintSpec("phoenix", "Phoenix Raceway", SHORT_TRACK, 1.0, 312,
        feed_ids=(84,),
        aliases=("Phoenix International Raceway", "Phoenix International", "ISM Raceway",
            "Jeff Gordon Raceway", "Phoenix")),
    ConstraintSpec("richmond", "Richmond Raceway", SHORT_TRACK, 0.75, 400,
        feed_ids=(26,), aliases=("Richmond International Raceway", "Richmond")),
    # Road and street courses
    ConstraintSpec("charlotte_roval", "Charlotte Motor Speedway Road Course", ROAD_COURSE, 2.28, 109,
        first_season=2018, feed_ids=(210,),
        aliases=("Charlotte Motor Speedway ROVAL", "Charlotte ROVAL", "ROVAL", "Charlotte Road Course",
            "Charlotte RC", "Charlotte Motor Speedway RC")),
    ConstraintSpec("chicago_street", "Chicago Street Course", ROAD_COURSE, 2.14, 75,
        first_season=2023, aliases=("Chicago Street Race", "Chicago Street Circuit", "Chicago Street")),
    # The short "National" layout replaced the grand-prix circuit in 2025.
    ConstraintSpec("cota", "Circuit of the Americas", ROAD_COURSE, 3.41, 68,
        last_season=2024, feed_ids=(214,), aliases=("COTA", "Austin")),
    ConstraintSpec("cota", "Circuit of the Americas", ROAD_COURSE, 2.4, 95,
        first_season=2025, feed_ids=(214,), aliases=("COTA", "Austin")),
    ConstraintSpec("daytona_road", "Daytona International Speedway Road Course", ROAD_COURSE, 3.61, 65,
        feed_ids=(212,),
        aliases=("Daytona Road Course", "Daytona RC", "Daytona International Speedway RC")),
    ConstraintSpec("indianapolis_road", "Indianapolis Motor Speedway Road Course", ROAD_COURSE, 2.439, 82,
        feed_ids=(211,),
        aliases=("Indianapolis Road Course", "Indy Road Course", "Indianapolis RC",
            "Indianapolis Motor Speedway RC")),
    ConstraintSpec("mexico_city", "Autódromo Hermanos Rodríguez", ROAD_COURSE, 2.42, 100,
        aliases=("Mexico City", "Mexico", "Autodromo Hermanos Rodriguez Mexico City")),
    ConstraintSpec("road_america", "Road America", ROAD_COURSE, 4.048, 62, feed_ids=(34,),
        aliases=("Elkhart Lake",)),
    ConstraintSpec("san_diego", "Naval Base Coronado", ROAD_COURSE, 3.4, 74,
        first_season=2026,
        aliases=("Coronado Street Course", "Naval Base Coronado Street Course", "San Diego Street Course",
            "San Diego")),
    # The Carousel was part of the lap from 2019 to 2021.
    ConstraintSpec("sonoma", "Sonoma Raceway", ROAD_COURSE, 1.99, 110,
        last_season=2018, feed_ids=(99,), aliases=("Sonoma", "Infineon Raceway")),
    ConstraintSpec("sonoma", "Sonoma Raceway", ROAD_COURSE, 2.52, 90,
        first_season=2019, last_season=2021, feed_ids=(99,), aliases=("Sonoma",)),
    ConstraintSpec("sonoma", "Sonoma Raceway", ROAD_COURSE, 1.99, 110,
        first_season=2022, feed_ids=(99,), aliases=("Sonoma",)),
    ConstraintSpec("watkins_glen", "Watkins Glen International", ROAD_COURSE, 2.45, 90,
        feed_ids=(157,), aliases=("Watkins Glen", "The Glen")),
    # Fits no archetype
    ConstraintSpec("bristol_dirt", "Bristol Motor Speedway Dirt Track", None, 0.533, 250,
        first_season=2021, feed_ids=(216,), aliases=("Bristol Motor Speedway Dirt", "Bristol Dirt")),
)
# fmt: on
