"""The tracks of the three series since 2013, as data: archetype, length, laps, eras, names and feed ids.

One entry is one track and layout over one era; a new era begins where the track itself changed.
Lengths are those of the official box scores, in miles; laps are those of the track's usual (or only)
race. A track that fits no archetype, such as dirt, has `archetype=None`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from calibration_pipeline.archetypes import Archetype

CATALOGUE_START = 2013

SUPERSPEEDWAY = Archetype.SUPERSPEEDWAY
INTERMEDIATE = Archetype.INTERMEDIATE
SHORT_TRACK = Archetype.SHORT_TRACK
ROAD_COURSE = Archetype.ROAD_COURSE

type Series = Literal["cup", "xfinity", "truck"]
SERIES: tuple[Series, ...] = ("cup", "xfinity", "truck")


@dataclass(frozen=True)
class Laps:
    """Laps of a usual race at a track, by series; None for a series that has not raced there.

    Attributes
    ----------
    cup, xfinity, truck : int, mapping of int to int, or None
        One number, or first season → number where a series changed the length of its race.
    """

    cup: int | Mapping[int, int] | None = None
    xfinity: int | Mapping[int, int] | None = None
    truck: int | Mapping[int, int] | None = None

    def of(self, series: Series) -> dict[int, int]:
        """Return first season → laps of a series; season 0 for one number, empty where there is none."""
        laps = {"cup": self.cup, "xfinity": self.xfinity, "truck": self.truck}[series]
        if laps is None:
            return {}
        return {0: laps} if isinstance(laps, int) else dict(sorted(laps.items()))


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
    scheduled_laps : Laps
        Laps of a usual race, by series.
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
    scheduled_laps: Laps
    first_season: int = CATALOGUE_START
    last_season: int | None = None
    aliases: tuple[str, ...] = ()
    feed_ids: tuple[int, ...] = ()


# fmt: off
CATALOGUE: tuple[ConstraintSpec, ...] = (
    # Superspeedways
    ConstraintSpec("daytona", "Daytona International Speedway", SUPERSPEEDWAY, 2.5, Laps(200, 120, 100),
        feed_ids=(105,), aliases=("Daytona", "Daytona Oval", "Daytona International Speedway Oval")),
    ConstraintSpec("talladega", "Talladega Superspeedway", SUPERSPEEDWAY, 2.66, Laps(188, 113, 94),
        feed_ids=(82,), aliases=("Talladega",)),
    # Repaved and banked more steeply for 2022: it races as a superspeedway since.
    ConstraintSpec("atlanta", "Atlanta Motor Speedway", INTERMEDIATE, 1.54,
        Laps(325, {2013: 195, 2015: 163}, 130),
        last_season=2021, feed_ids=(111,), aliases=("Atlanta",)),
    ConstraintSpec("atlanta", "Atlanta Motor Speedway", SUPERSPEEDWAY, 1.54, Laps(260, 163, 135),
        first_season=2022, feed_ids=(111,),
        aliases=("Atlanta", "EchoPark Speedway", "EchoPark Speedway Atlanta",
            "EchoPark Speedway (Atlanta Motor Speedway)")),
    # Intermediates
    ConstraintSpec("auto_club", "Auto Club Speedway", INTERMEDIATE, 2.0, Laps(200, 150),
        feed_ids=(38,),
        aliases=("Auto Club", "California Speedway", "California",
            "Auto Club Speedway of Southern California", "Fontana")),
    ConstraintSpec("charlotte", "Charlotte Motor Speedway", INTERMEDIATE, 1.5, Laps(400, 200, 134),
        feed_ids=(162,), aliases=("Charlotte", "Charlotte Oval", "Charlotte Motor Speedway Oval")),
    ConstraintSpec("chicagoland", "Chicagoland Speedway", INTERMEDIATE, 1.5,
        Laps(267, 200, 150), aliases=("Chicagoland",)),
    ConstraintSpec("darlington", "Darlington Raceway", INTERMEDIATE, 1.366, Laps(367, 147, 147),
        feed_ids=(4,), aliases=("Darlington",)),
    ConstraintSpec("homestead", "Homestead-Miami Speedway", INTERMEDIATE, 1.5, Laps(267, 200, 134),
        feed_ids=(40,), aliases=("Homestead", "Homestead-Miami", "Miami")),
    ConstraintSpec("indianapolis", "Indianapolis Motor Speedway", INTERMEDIATE, 2.5, Laps(160, 100),
        feed_ids=(123,),
        aliases=("Indianapolis", "Indy", "Indianapolis Oval", "Indianapolis Motor Speedway Oval")),
    ConstraintSpec("kansas", "Kansas Speedway", INTERMEDIATE, 1.5,
        Laps(267, 200, {2013: 167, 2020: 134}), feed_ids=(41,), aliases=("Kansas",)),
    ConstraintSpec("kentucky", "Kentucky Speedway", INTERMEDIATE, 1.5, Laps(267, 200, 150),
        feed_ids=(61,), aliases=("Kentucky",)),
    ConstraintSpec("las_vegas", "Las Vegas Motor Speedway", INTERMEDIATE, 1.5,
        Laps(267, 200, {2013: 146, 2018: 134}),
        feed_ids=(42,), aliases=("Las Vegas",)),
    ConstraintSpec("michigan", "Michigan International Speedway", INTERMEDIATE, 2.0, Laps(200, 125, 100),
        feed_ids=(133,), aliases=("Michigan", "Michigan Speedway")),
    ConstraintSpec("nashville", "Nashville Superspeedway", INTERMEDIATE, 1.333, Laps(300, 188, 150),
        feed_ids=(52,), aliases=("Nashville",)),
    ConstraintSpec("pocono", "Pocono Raceway", INTERMEDIATE, 2.5, Laps(160, {2013: 100, 2020: 90}, 60),
        feed_ids=(198,), aliases=("Pocono", "Pocono International Raceway")),
    ConstraintSpec("texas", "Texas Motor Speedway", INTERMEDIATE, 1.5, Laps(334, 200, 167),
        feed_ids=(43,), aliases=("Texas",)),
    ConstraintSpec("gateway", "World Wide Technology Raceway", INTERMEDIATE, 1.25, Laps(240, None, 160),
        aliases=("World Wide Technology Raceway at Gateway", "WWT Raceway", "WWT Raceway at Gateway",
            "World Wide Technology", "Gateway Motorsports Park", "Gateway International Raceway", "Gateway",
            "St. Louis")),
    # Short tracks
    ConstraintSpec("bristol", "Bristol Motor Speedway", SHORT_TRACK, 0.533, Laps(500, 300, 200),
        feed_ids=(14,), aliases=("Bristol", "Bristol Concrete", "Bristol Motor Speedway Concrete")),
    ConstraintSpec("dover", "Dover Motor Speedway", SHORT_TRACK, 1.0, Laps(400, 200, 200),
        feed_ids=(103,),
        aliases=("Dover International Speedway", "Dover Downs International Speedway", "Dover")),
    ConstraintSpec("iowa", "Iowa Speedway", SHORT_TRACK, 0.875, Laps(350, 250, 200), aliases=("Iowa",)),
    ConstraintSpec("martinsville", "Martinsville Speedway", SHORT_TRACK, 0.526, Laps(500, 250, 200),
        feed_ids=(22,), aliases=("Martinsville",)),
    ConstraintSpec("new_hampshire", "New Hampshire Motor Speedway", SHORT_TRACK, 1.058, Laps(301, 200, 175),
        feed_ids=(138,), aliases=("New Hampshire International Speedway", "New Hampshire", "Loudon", "NHMS")),
    ConstraintSpec("north_wilkesboro", "North Wilkesboro Speedway", SHORT_TRACK, 0.625, Laps(450, None, 250),
        aliases=("North Wilkesboro",)),
    ConstraintSpec("phoenix", "Phoenix Raceway", SHORT_TRACK, 1.0, Laps(312, 200, 150),
        feed_ids=(84,),
        aliases=("Phoenix International Raceway", "Phoenix International", "ISM Raceway",
            "Jeff Gordon Raceway", "Phoenix")),
    ConstraintSpec("richmond", "Richmond Raceway", SHORT_TRACK, 0.75, Laps(400, 250, 250),
        feed_ids=(26,), aliases=("Richmond International Raceway", "Richmond")),
    ConstraintSpec("indianapolis_raceway_park", "Lucas Oil Indianapolis Raceway Park", SHORT_TRACK, 0.686,
        Laps(truck=200),
        aliases=("Indianapolis Raceway Park", "Lucas Oil Raceway", "Lucas Oil Raceway at Indianapolis",
            "Lucas Oil Raceway Park", "IRP")),
    ConstraintSpec("milwaukee", "The Milwaukee Mile", SHORT_TRACK, 1.015, Laps(truck=175),
        aliases=("Milwaukee Mile", "Milwaukee", "Milwaukee Mile Speedway")),
    # Measured again for 2025.
    ConstraintSpec("rockingham", "Rockingham Speedway", SHORT_TRACK, 1.0, Laps(truck=200),
        last_season=2024, aliases=("Rockingham", "North Carolina Speedway", "The Rock")),
    ConstraintSpec("rockingham", "Rockingham Speedway", SHORT_TRACK, 0.94, Laps(xfinity=250, truck=200),
        first_season=2025, aliases=("Rockingham",)),
    # Road and street courses
    ConstraintSpec("charlotte_roval", "Charlotte Motor Speedway Road Course", ROAD_COURSE, 2.28,
        Laps(109, {2018: 55, 2019: 67}),
        first_season=2018, feed_ids=(210,),
        aliases=("Charlotte Motor Speedway ROVAL", "Charlotte ROVAL", "ROVAL", "Charlotte Road Course",
            "Charlotte RC", "Charlotte Motor Speedway RC",
            "Charlotte Motor Speedway Road Course (ROVAL)")),
    ConstraintSpec("chicago_street", "Chicago Street Course", ROAD_COURSE, 2.14, Laps(75, 50),
        first_season=2023, aliases=("Chicago Street Race", "Chicago Street Circuit", "Chicago Street")),
    # The short "National" layout replaced the grand-prix circuit in 2025.
    ConstraintSpec("cota", "Circuit of the Americas", ROAD_COURSE, 3.41, Laps(68, 46, 42),
        last_season=2024, feed_ids=(214,), aliases=("COTA", "Austin")),
    ConstraintSpec("cota", "Circuit of the Americas", ROAD_COURSE, 2.4, Laps(95, 65),
        first_season=2025, feed_ids=(214,), aliases=("COTA", "Austin")),
    ConstraintSpec("daytona_road", "Daytona International Speedway Road Course", ROAD_COURSE, 3.61,
        Laps(65, 52, 46),
        feed_ids=(212,),
        aliases=("Daytona Road Course", "Daytona RC", "Daytona International Speedway RC")),
    ConstraintSpec("indianapolis_road", "Indianapolis Motor Speedway Road Course", ROAD_COURSE, 2.439,
        Laps(82, 62),
        feed_ids=(211,),
        aliases=("Indianapolis Road Course", "Indy Road Course", "Indianapolis RC",
            "Indianapolis Motor Speedway RC")),
    ConstraintSpec("lime_rock", "Lime Rock Park", ROAD_COURSE, 1.53, Laps(truck=100),
        aliases=("Lime Rock",)),
    ConstraintSpec("mexico_city", "Autódromo Hermanos Rodríguez", ROAD_COURSE, 2.42, Laps(100, 65),
        aliases=("Mexico City", "Mexico", "Autodromo Hermanos Rodriguez Mexico City")),
    ConstraintSpec("mid_ohio", "Mid-Ohio Sports Car Course", ROAD_COURSE, 2.258,
        Laps(xfinity={2013: 90, 2015: 75}, truck=67), aliases=("Mid-Ohio",)),
    ConstraintSpec("mosport", "Canadian Tire Motorsport Park", ROAD_COURSE, 2.459, Laps(truck=64),
        aliases=("Canadian Tire Motorsports Park", "Mosport", "Mosport Park", "Mosport International Raceway",
            "Bowmanville")),
    ConstraintSpec("portland", "Portland International Raceway", ROAD_COURSE, 1.967, Laps(xfinity=75),
        aliases=("Portland Speedway", "Portland")),
    ConstraintSpec("road_america", "Road America", ROAD_COURSE, 4.048,
        Laps(62, {2013: 50, 2015: 45}), feed_ids=(34,),
        aliases=("Elkhart Lake",)),
    ConstraintSpec("san_diego", "Naval Base Coronado", ROAD_COURSE, 3.4, Laps(74),
        first_season=2026,
        aliases=("Coronado Street Course", "Naval Base Coronado Street Course", "San Diego Street Course",
            "San Diego")),
    # The Carousel was part of the lap from 2019 to 2021.
    ConstraintSpec("sonoma", "Sonoma Raceway", ROAD_COURSE, 1.99, Laps(110),
        last_season=2018, feed_ids=(99,), aliases=("Sonoma", "Infineon Raceway")),
    ConstraintSpec("sonoma", "Sonoma Raceway", ROAD_COURSE, 2.52, Laps(90),
        first_season=2019, last_season=2021, feed_ids=(99,), aliases=("Sonoma",)),
    ConstraintSpec("sonoma", "Sonoma Raceway", ROAD_COURSE, 1.99, Laps(110, 79, 75),
        first_season=2022, feed_ids=(99,), aliases=("Sonoma",)),
    ConstraintSpec("watkins_glen", "Watkins Glen International", ROAD_COURSE, 2.45, Laps(90, 82, 72),
        feed_ids=(157,), aliases=("Watkins Glen", "The Glen", "Watkins Glen International Raceway")),
    # Fits no archetype
    ConstraintSpec("bristol_dirt", "Bristol Motor Speedway Dirt Track", None, 0.533, Laps(250, None, 150),
        first_season=2021, feed_ids=(216,), aliases=("Bristol Motor Speedway Dirt", "Bristol Dirt")),
    ConstraintSpec("eldora", "Eldora Speedway", None, 0.5, Laps(truck=150), aliases=("Eldora",)),
    ConstraintSpec("knoxville", "Knoxville Raceway", None, 0.5, Laps(truck=150), aliases=("Knoxville",)),
)
# fmt: on
