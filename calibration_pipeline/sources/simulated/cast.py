"""The cast of the simulated seasons, all invented: teams, seats, car numbers, drivers' names."""

import numpy as np
from numpy.typing import NDArray

FIRST_DRIVER_NUMBER = 1001
FIELD_SIZES = (36, 37, 38, 39, 40)

# fmt: off
FIRST_NAMES = (
    "Aldous", "Amos", "Barrett", "Beau", "Bram", "Caleb", "Clyde", "Dalton", "Deacon", "Desmond",
    "Edgar", "Elias", "Emory", "Felix", "Gideon", "Grady", "Harlan", "Hollis", "Ignacio", "Isaac",
    "Jasper", "Judson", "Kip", "Lachlan", "Leander", "Lionel", "Lowell", "Marcus", "Merritt", "Nolan",
    "Orson", "Otis", "Percy", "Quentin", "Rafael", "Rhett", "Roscoe", "Silas", "Thaddeus", "Virgil",
    "Wendell", "Yates",
)
SURNAMES = (
    "Abernathy", "Ashdown", "Barlowe", "Beckwith", "Birchall", "Calloway", "Carrow", "Claymore",
    "Dunmore", "Eastwick", "Fairbank", "Garrowby", "Halloran", "Hargrove", "Ingersoll", "Jessop",
    "Kettering", "Langdon", "Lockridge", "Maddock", "Merriweather", "Netherton", "Oakhurst",
    "Pemberton", "Pickering", "Quillon", "Radcliffe", "Rosewall", "Shackleford", "Standish",
    "Thackeray", "Underhill", "Vandermeer", "Wainwright", "Whitlock", "Winslow", "Yarborne", "Zellner",
)
CAR_NUMBERS = (
    "5", "9", "24", "48", "11", "19", "20", "54", "2", "12", "22", "21", "8", "3", "31", "6", "17",
    "10", "23", "45", "67", "1", "99", "14", "41", "50", "4", "34", "62", "38", "71", "44", "47", "78",
    "43", "84", "7", "15", "66", "51", "33", "13",
)
# fmt: on

TEAMS: tuple[tuple[str, str, int, int], ...] = (
    # name, make, full-time cars, part-time cars
    ("Ridgeline Motorsports", "Chevrolet", 4, 0),
    ("Copper Creek Racing", "Toyota", 4, 0),
    ("Halvorsen Racing", "Ford", 4, 0),
    ("Blue Mesa Motorsports", "Chevrolet", 3, 0),
    ("Northfield Racing", "Ford", 3, 0),
    ("Sablewood Racing", "Toyota", 2, 1),
    ("Old Mill Motorsports", "Chevrolet", 2, 0),
    ("Tidewater Autosport", "Ford", 2, 1),
    ("Ironbridge Racing", "Chevrolet", 2, 1),
    ("Cardinal Hill Racing", "Ford", 2, 1),
    ("Larkspur Motorsports", "Chevrolet", 1, 1),
    ("Four Winds Racing", "Toyota", 1, 1),
    ("Stonecutter Racing", "Ford", 1, 2),
    ("Bayou Line Motorsports", "Chevrolet", 1, 2),
)

N_FULL_TIME = sum(full for _, _, full, _ in TEAMS)
_FULL_TIME_TEAM = np.repeat(np.arange(len(TEAMS)), [full for _, _, full, _ in TEAMS])
_PART_TIME_TEAM = np.repeat(np.arange(len(TEAMS)), [part for _, _, _, part in TEAMS])
SEAT_TEAM: NDArray[np.int64] = np.concatenate([_FULL_TIME_TEAM, _PART_TIME_TEAM])


def driver_names(driver: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.str_]:
    """Return the invented name of each driver number; the same generator gives the same names."""
    pair = rng.permutation(len(FIRST_NAMES) * len(SURNAMES))[driver - FIRST_DRIVER_NUMBER]
    first, last = np.divmod(pair, len(SURNAMES))
    return np.char.add(np.char.add(np.array(FIRST_NAMES)[first], " "), np.array(SURNAMES)[last])
