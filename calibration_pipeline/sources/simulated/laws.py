"""Laws of the simulated races by archetype: every parameter of their outcomes."""

from dataclasses import dataclass

from calibration_pipeline.archetypes import Archetype

LUCK_DF = 4.0
GOOD_LUCK_SHARE = 0.5
WRECK_CHAOS = 0.20
SHARPNESS_AFTER_CHANGE = 0.75
SEASONS_BEFORE_CHANGE = 2


@dataclass(frozen=True)
class RaceLaw:
    """Parameters of the races of one archetype.

    Attributes
    ----------
    luck_scale : float
        Scale of the luck, a two-piece Student t with `LUCK_DF` degrees of freedom: bad luck has this scale,
        good luck `GOOD_LUCK_SHARE` of it.
    start_effect : float
        Weight of the grid (as a normal score) in a car's speed.
    team_day_sd, car_day_sd : float
        Race × team and race × car effects on speed.
    incident_intercept, chaos_scale : float
        Logit of retiring alone for the average driver, and its weight of the race's chaos z ~ N(0, 1).
    wrecks, wreck_size, wreck_retires : float
        Mean number of multi-car wrecks (log-linear in chaos), their mean size beyond 2 cars, and the share of
        the cars caught that retires; the others run on damaged.
    trouble : float
        Share of cars that lose laps in the pits without retiring.
    lead_lap_sd, lap_sd : float
        Gap to the winner, in standard deviations of performance, within which a car stays on the lead lap,
        and the further gap for each lap down.
    debris_cautions, caution_laps : float
        Mean number of cautions without an incident, and mean laps of a caution.
    overtime : float
        Share of races that run longer than scheduled.
    mph, caution_factor, falloff, fuel_laps : float
        Green-flag speed, lap time under caution over green, tyre falloff a lap (share of lap time), laps
        a tank.
    shuffle : float
        Size of the changes in the running order.
    """

    luck_scale: float
    start_effect: float
    team_day_sd: float
    car_day_sd: float
    incident_intercept: float
    chaos_scale: float
    wrecks: float
    wreck_size: float
    wreck_retires: float
    trouble: float
    lead_lap_sd: float
    lap_sd: float
    debris_cautions: float
    caution_laps: float
    overtime: float
    mph: float
    caution_factor: float
    falloff: float
    fuel_laps: int
    shuffle: float


LAWS: dict[Archetype, RaceLaw] = {
    Archetype.SUPERSPEEDWAY: RaceLaw(
        luck_scale=3.0,
        start_effect=0.05,
        team_day_sd=0.30,
        car_day_sd=0.30,
        incident_intercept=-2.25,
        chaos_scale=0.35,
        wrecks=2.4,
        wreck_size=5.0,
        wreck_retires=0.50,
        trouble=0.05,
        lead_lap_sd=2.5,
        lap_sd=1.0,
        debris_cautions=2.0,
        caution_laps=5.0,
        overtime=0.35,
        mph=190.0,
        caution_factor=2.6,
        falloff=0.0001,
        fuel_laps=42,
        shuffle=1.2,
    ),
    Archetype.INTERMEDIATE: RaceLaw(
        luck_scale=1.0,
        start_effect=0.20,
        team_day_sd=0.30,
        car_day_sd=0.25,
        incident_intercept=-2.0,
        chaos_scale=0.58,
        wrecks=0.15,
        wreck_size=3.0,
        wreck_retires=0.50,
        trouble=0.03,
        lead_lap_sd=2.0,
        lap_sd=0.6,
        debris_cautions=3.0,
        caution_laps=6.0,
        overtime=0.15,
        mph=172.0,
        caution_factor=2.2,
        falloff=0.0008,
        fuel_laps=46,
        shuffle=0.45,
    ),
    Archetype.SHORT_TRACK: RaceLaw(
        luck_scale=0.75,
        start_effect=0.30,
        team_day_sd=0.25,
        car_day_sd=0.20,
        incident_intercept=-2.6,
        chaos_scale=0.7,
        wrecks=0.10,
        wreck_size=3.0,
        wreck_retires=0.35,
        trouble=0.03,
        lead_lap_sd=1.6,
        lap_sd=0.4,
        debris_cautions=3.5,
        caution_laps=8.0,
        overtime=0.15,
        mph=122.0,
        caution_factor=1.6,
        falloff=0.0005,
        fuel_laps=110,
        shuffle=0.35,
    ),
    Archetype.ROAD_COURSE: RaceLaw(
        luck_scale=0.85,
        start_effect=0.25,
        team_day_sd=0.25,
        car_day_sd=0.25,
        incident_intercept=-2.5,
        chaos_scale=0.68,
        wrecks=0.05,
        wreck_size=3.0,
        wreck_retires=0.35,
        trouble=0.04,
        lead_lap_sd=2.4,
        lap_sd=1.2,
        debris_cautions=2.5,
        caution_laps=3.0,
        overtime=0.15,
        mph=98.0,
        caution_factor=1.6,
        falloff=0.0015,
        fuel_laps=32,
        shuffle=0.40,
    ),
}
