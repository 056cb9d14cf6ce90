"""Example documents of NASCAR's timing feed: a race of four laps at Kansas, for tests of its reader."""

from typing import Any

LAPS = 4


def scheduled(race_id: int, day: int, **changes: Any) -> dict[str, Any]:
    """One entry of a race list: a points race at Kansas that has run."""
    race = {
        "race_id": race_id,
        "race_season": 2021,
        "race_type_id": 1,
        "race_name": f"Race {race_id}",
        "race_date": f"2021-05-{day:02d}T15:00:00",
        "track_id": 41,
        "track_name": "Kansas Speedway",
        "scheduled_laps": 5,
        "average_speed": 130.5,
        "total_race_time": None,
    }
    return race | changes


def result(place: int, **changes: Any) -> dict[str, Any]:
    """One row of results; the winner led every lap."""
    row = {
        "finishing_position": place,
        "starting_position": place,
        "car_number": f"{place:02d}",
        "driver_fullname": f"Driver {place}",
        "driver_id": 1000 + place,
        "team_name": "Team",
        "car_make": "Ford",
        "laps_completed": LAPS,
        "laps_led": LAPS if place == 1 else 0,
        "finishing_status": "Running",
        "disqualified": False,
    }
    return row | changes


def weekend(race_id: int, n_cars: int = 3, **changes: Any) -> dict[str, Any]:
    """A weekend document of a race of four laps, the second under yellow."""
    race = {
        "race_id": race_id,
        "actual_laps": LAPS,
        "scheduled_laps": 5,
        "number_of_cautions": 1,
        "number_of_caution_laps": 1,
        "results": [result(place) for place in range(1, n_cars + 1)],
    }
    return {"weekend_race": [race | changes], "weekend_runs": []}


def lap_times(n_cars: int = 3) -> dict[str, Any]:
    """The laps of that race: all cars equally fast, so that the car ahead has the fastest lap."""
    cars = [
        {
            "Number": f"{place:02d}",
            "FullName": f"* Driver {place} (i) #",
            "NASCARDriverID": 1000 + place,
            "RunningPos": place,
            "Laps": [
                {"Lap": lap, "LapTime": 30.5 if lap else None, "LapSpeed": None, "RunningPos": place}
                for lap in range(LAPS + 1)
            ],
        }
        for place in range(1, n_cars + 1)
    ]
    flags = [{"LapsCompleted": lap, "FlagState": state} for lap, state in enumerate((8, 1, 2, 1, 1))]
    return {"laps": cars, "flags": flags}
