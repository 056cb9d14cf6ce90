"""Example content of a report: three archetypes have verdicts, the fourth has no race yet."""

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.markets import ALL_MARKETS, MARKETS, RACE_MARKETS
from calibration_pipeline.report import ReportContent, render_html
from calibration_pipeline.report.content import ALL_ARCHETYPES
from calibration_pipeline.report.document import build_document
from calibration_pipeline.report.words import VERDICTS
from calibration_pipeline.schemas.frames import (
    EFFECTS,
    CalibrationCurves,
    JointEventTable,
    MetricTable,
    ModelComparison,
)
from calibration_pipeline.schemas.monitoring import CalibrationMonitoring
from calibration_pipeline.seasons import ALL_RACES
from calibration_pipeline.stats.e_processes import log_e_process, log_mean
from calibration_pipeline.verification.verdicts.matrix import verdict_table
from calibration_pipeline.verification.verdicts.rules import Evidence, Verdict

RULINGS = list(VERDICTS)
ERAS = ("from 2022", ALL_RACES)
JUDGED = ARCHETYPES[:3]
"""The last archetype has no race yet."""
EVENTS = ["top(5) & running", "led(1) & top(10)", "both_teammates(top(10))", "count(dnf) >= 8"]
ESTIMATES = {
    ("crps", "", ""): (8.2, 7.9, "smaller is better"),
    ("log_score", "", ""): (-3.52, -3.49, "larger is better"),
    ("rps", "", ""): (0.214, 0.209, "smaller is better"),
    ("coverage", "50 %", ""): (0.437, 0.492, "nominal is best"),
    ("coverage", "80 %", ""): (0.721, 0.793, "nominal is best"),
    ("coverage", "95 %", ""): (0.905, 0.946, "nominal is best"),
    ("brier", "win", ""): (0.0251, 0.0249, "smaller is better"),
    ("brier", "top 10", ""): (0.161, 0.158, "smaller is better"),
    ("brier", "head to head", ""): (0.221, 0.219, "smaller is better"),
    ("brier_miscalibration", "top 10", ""): (0.0031, 0.0012, "smaller is better"),
    ("brier_uncertainty", "top 10", ""): (0.19, 0.19, "for comparison"),
    ("head_to_head_slope", "", ""): (0.78, 1.02, "nominal is best"),
    ("crps_skill", "", "climatology"): (0.121, 0.143, "larger is better"),
    ("crps_skill", "", "start_order"): (0.051, 0.064, "larger is better"),
    ("brier_skill", "top 10", "climatology"): (0.18, 0.2, "larger is better"),
    ("brier_skill", "head to head", "bradley_terry"): (0.031, 0.044, "larger is better"),
    ("log_gain", "", "climatology"): (0.132, 0.161, "larger is better"),
}
OF_SCENARIOS = {
    ("energy_score", "", ""): (7.31, 7.22, "smaller is better"),
    ("sharpness", "80 %", ""): (22.1, 24.6, "smaller is better"),
}
GAINED = {
    ("crps_skill", "", "raw"): (0.024, "larger is better"),
    ("log_gain", "", "raw"): (0.029, "larger is better"),
}


def verdict_frame() -> pl.DataFrame:
    """Verdicts of four archetypes in two eras: rulings follow one another along a row."""
    return pl.concat(
        verdict_table(
            "network", archetype, {era: example_verdicts(shift + a) for shift, era in enumerate(ERAS)}
        )
        for a, archetype in enumerate(ARCHETYPES)
    )


def example_verdicts(shift: int) -> list[Verdict]:
    verdicts = []
    for m, market in enumerate((ALL_MARKETS, *MARKETS)):
        ruling = RULINGS[(m + shift) % len(RULINGS)]
        if market == ALL_MARKETS:
            notes = [Evidence("", "", "", f"{ruling.capitalize()}: {', '.join(MARKETS)}.")]
            verdicts.append(Verdict(market, ruling, None, notes))
            continue
        lines = [
            Evidence(forecast, quantity, "", f"{forecast.capitalize()}: {market}.", 0.9, 0.8, 1.0, 36, 0.01)
            for forecast, quantity in (("recalibrated", "slope"), ("raw", "slope"), ("recalibrated", "gain"))
        ]
        needed = 40 if ruling == "cannot tell yet" else None
        verdicts.append(Verdict(market, ruling, EFFECTS[m % len(EFFECTS)], lines, needed))
    return verdicts


def metric_table() -> pl.DataFrame:
    rows = []
    for archetype in JUDGED:
        for key, (raw, recalibrated, orientation) in (ESTIMATES | OF_SCENARIOS).items():
            values = {"raw": raw, "recalibrated": recalibrated}
            if key in ESTIMATES:
                values |= {"start_order": 1.1 * raw, "climatology": 1.2 * raw}
            rows += [metric_row(archetype, name, key, value, orientation) for name, value in values.items()]
        rows += [
            metric_row(archetype, "recalibrated", key, value, orientation)
            for key, (value, orientation) in GAINED.items()
        ]
    return MetricTable.validate(pl.DataFrame(rows))


def metric_row(
    archetype: str, forecast: str, key: tuple[str, str, str], value: float, orientation: str
) -> dict[str, object]:
    quantity, level, reference = key
    return {
        "archetype": archetype,
        "forecast": forecast,
        "quantity": quantity,
        "level": level,
        "reference": reference,
        "estimate": value,
        "lower": value - 0.04 * abs(value),
        "upper": value + 0.04 * abs(value),
        "error_ratio": 1.4,
        "monte_carlo_error": 0.004,
        "n_races": 36,
        "n_cars": 1322,
        "orientation": orientation,
        "estimator": f"made up {quantity}",
    }


def curve_table() -> pl.DataFrame:
    edges = np.linspace(0, 0.8, 9)
    predicted = (edges[1:] + edges[:-1]) / 2
    frames = [
        pl.DataFrame(
            {
                "archetype": archetype,
                "forecast": forecast,
                "event": event,
                "predicted": predicted,
                "predicted_from": edges[:-1],
                "predicted_to": edges[1:],
                "observed": 0.3 + slope * (predicted - 0.3),
                "lower": np.clip(predicted - 0.08, 0, 1),
                "upper": predicted + 0.08,
                "n_cases": 160,
                "n_races": 36,
            }
        )
        for archetype in JUDGED
        for forecast, slope in {"raw": 0.75, "recalibrated": 1.0}.items()
        for event in ("win", "top 5", "top 10", "head to head")
    ]
    return CalibrationCurves.validate(pl.concat(frames).cast({"n_cases": pl.Int64, "n_races": pl.Int64}))


def pit_table() -> pl.DataFrame:
    u = np.linspace(0, 1, 41)
    band = 0.09 * np.sqrt(u * (1 - u)) + 1e-9
    bend = {"raw": 0.06, "recalibrated": 0.012}
    frames = [
        {"archetype": archetype, "forecast": forecast, "u": u, "ecdf": u + by * np.sin(2 * np.pi * u)}
        for archetype in JUDGED
        for forecast, by in bend.items()
    ]
    return pl.concat(pl.DataFrame(frame | {"lower": u - band, "upper": u + band}) for frame in frames)


def joint_event_table() -> pl.DataFrame:
    """Four events: the first does not measure dependence, the last has too few races."""
    rows = [
        {
            "archetype": archetype,
            "era": ALL_RACES,
            "forecast": forecast,
            "event": event,
            "predicted": observed + error,
            "observed": observed,
            "lower": observed - 0.08,
            "upper": observed + 0.08,
            "calibration_error": abs(error),
            "z": -error / 0.04,
            "p_value": p_value,
            "p_together": 4 * p_value,
            "gain": 0.02,
            "gain_lower": 0.005,
            "gain_upper": 0.035,
            "about_dependence": event != EVENTS[0],
            "p_independent": 0.3 if event == EVENTS[-1] else 0.01,
            "power_independent": 0.35 if event == EVENTS[-1] else 0.95,
            "gain_over_raw": None if forecast == "raw" else 0.011,
            "gain_over_raw_lower": None if forecast == "raw" else -0.002,
            "gain_over_raw_upper": None if forecast == "raw" else 0.024,
            "gain_together": None if forecast == "raw" else 0.004,
            "gain_together_lower": None if forecast == "raw" else -0.001,
            "gain_together_upper": None if forecast == "raw" else 0.009,
            "n_races": 36,
            "n_cases": 180,
        }
        for archetype in JUDGED
        for event, observed in zip(EVENTS, (0.41, 0.66, 0.28, 0.17), strict=True)
        for forecast, error, p_value in (("raw", 0.07, 0.004), ("recalibrated", -0.02, 0.2))
    ]
    return JointEventTable.validate(pl.DataFrame(rows))


def monitoring_table() -> pl.DataFrame:
    """Two seasons of three races: the raw forecast of one archetype raises an alarm in the second."""
    rng = np.random.default_rng(8)
    seasons = np.repeat([2023, 2024], 3)
    frames = []
    for a, archetype in enumerate(JUDGED):
        for forecast in ("raw", "recalibrated"):
            low = a == 1 and forecast == "raw"
            ranks = rng.uniform(0.001, 0.01 if low else 0.999, (len(RACE_MARKETS), seasons.size))
            ranks[:, :3] = rng.uniform(0.4, 0.6, (len(RACE_MARKETS), 3))
            spans = {}
            for name, restart in (("season", seasons), ("start", np.zeros(seasons.size))):
                log_e = log_e_process(ranks, restart)
                spans[f"log10_e_{name}"] = np.vstack([log_e, log_mean(log_e)]).ravel() / np.log(10)
            frames.append(
                pl.DataFrame(
                    {
                        "archetype": str(archetype),
                        "forecast": forecast,
                        "market": np.repeat([*RACE_MARKETS, ALL_MARKETS], seasons.size),
                        "race_id": np.tile(10 * np.arange(seasons.size) + a, len(RACE_MARKETS) + 1),
                        "season": np.tile(seasons, len(RACE_MARKETS) + 1),
                        "race_order": np.tile(100 * seasons + a + [1, 11, 21] * 2, len(RACE_MARKETS) + 1),
                        "rank": [*ranks.ravel().tolist(), *[None] * seasons.size],
                        **spans,
                    }
                )
            )
    return CalibrationMonitoring.validate(pl.concat(frames))


def state_table(seasons: int = 3) -> pl.DataFrame:
    """States before twelve races a season, in which the archetypes take turns."""
    race = np.arange(12 * seasons)
    slope = 0.9 + 0.1 * np.sin(race / 5)
    names = [str(archetype) for archetype in ARCHETYPES]
    return pl.DataFrame(
        {
            "archetype": [names[k % len(names)] for k in race],
            "season": 2022 + race // 12,
            "race_order": 100 * (2022 + race // 12) + 1 + race % 12,
            "race_id": race,
            "n_calibration_races": 3 + race // len(names),
            "slope": slope,
            "slope_lower": slope - 0.15,
            "slope_upper": slope + 0.2,
            "shift": 0.02 * np.cos(race),
            "shift_lower": 0.02 * np.cos(race) - 0.3,
            "shift_upper": 0.02 * np.cos(race) + 0.3,
            "tilt": slope - 0.1,
            "tilt_lower": slope - 0.3,
            "tilt_upper": slope + 0.15,
        }
    )


def predictive_checks() -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "archetype": archetype,
                "statistic": statistic,
                "group": group,
                "observed": observed,
                "mean": observed + 0.01,
                "lower": observed - width,
                "upper": observed + width,
                "tail_probability": 0.45,
            }
            for archetype in JUDGED
            for statistic, observed in {"rank_correlation": 0.51, "n_incidents": 5.4}.items()
            for group, width in {"prior": 0.4, "posterior": 0.04}.items()
        ]
    )


def example_fit(seed: int, n_races: int = 12) -> xr.DataTree:
    """Draws in the form of a fit, with arbitrary values."""
    rng = np.random.default_rng(seed)
    chains, seasons, races = (2, 60), list(range(2021, 2025)), list(range(n_races))
    scalars = ("slope_mu", "slope_sigma", "noise_sigma", "intercept")

    def by_race(values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        return ("chain", "draw", "race")[3 - values.ndim :], values

    def predictive(shape: tuple[int, ...]) -> xr.Dataset:
        correlation = by_race(np.tanh(rng.normal(0.6, 0.2, shape)))
        incidents = by_race(rng.poisson(5, shape))
        return xr.Dataset({"rank_correlation": correlation, "n_incidents": incidents}, {"race": races})

    posterior = {name: (("chain", "draw"), rng.normal(size=chains)) for name in scalars}
    log_slope = (("chain", "draw", "season"), rng.normal(scale=0.1, size=(*chains, len(seasons))))
    likelihood = by_race(rng.normal(-60, 1, (*chains, n_races)))
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(posterior | {"log_slope": log_slope}, {"season": seasons}),
            "sample_stats": xr.Dataset({"energy": (("chain", "draw"), rng.normal(size=chains))}),
            "posterior_predictive": predictive((2, 30, n_races)),
            "observed_data": predictive((n_races,)),
            "log_likelihood": xr.Dataset({"result": likelihood}, {"race": races}),
        }
    )


def comparison_table() -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "model": ["pooled", "per archetype", "raw"],
            "rank": [0, 1, 2],
            "elpd": [-400.0, -401.25, -1820.75],
            "se": 12.5,
            "elpd_diff": [0.0, -1.25, -1420.75],
            "dse": [0.0, 0.5, 30.0],
            "p": [6.25, 9.0, 0.0],
            "weight": [0.75, 0.25, 0.0],
            "n_races": [144] * 3,
            "worst_pareto_k": [0.45, 0.85, 0.0],
        }
    )
    return ModelComparison.validate(table)


def next_race() -> pl.DataFrame:
    strength = np.exp(-0.12 * np.arange(38))
    win = strength / strength.sum()
    chances = {
        "win": win,
        "top5": np.clip(4.5 * win, 0, 1),
        "top10": np.clip(7.5 * win, 0, 1),
        "dnf": np.full(38, 0.11),
    }
    ends = {
        f"{name}_{end}": k * p for name, p in chances.items() for end, k in (("lower", 0.9), ("upper", 1.1))
    }
    return pl.DataFrame(
        {
            "driver": [f"Driver <{i}> & Co" for i in range(38)],
            "car_number": [str(i) for i in range(38)],
            "start_position": range(1, 39),
            **chances,
            **ends,
            "finish_median": range(1, 39),
            "finish_lower": [max(i - 9, 1) for i in range(38)],
            "finish_upper": [min(i + 10, 38) for i in range(38)],
        }
    )


def next_race_events() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "event": ["top(5) & running", "count(dnf) >= 3"],
            "predicted": [0.121, 0.62],
            "lower": [0.118, 0.5],
            "upper": [0.124, 0.71],
            "n_cases": [38, 1],
        }
    )


def example_content(**changes: object) -> ReportContent:
    parameters = ("slope_mu", "slope_sigma", "noise_sigma", "intercept")
    content = {
        "title": "Can the simulated races be trusted?",
        "source": "simulated",
        "verdicts": verdict_frame(),
        "metrics": metric_table(),
        "joint_events": joint_event_table(),
        "skipped_events": {"same_make(top(3))": "the source does not know the cars' makes"},
        "curves": curve_table(),
        "monitoring": monitoring_table(),
        "pit": pit_table(),
        "states": state_table(),
        "slopes": pl.DataFrame(
            [
                {"archetype": a, "season": s, "estimate": 0.8 + 0.05 * i, "lower": 0.7, "upper": 1.15}
                for a in ARCHETYPES
                for i, s in enumerate(range(2021, 2025))
            ]
        ),
        "convergence": pl.DataFrame(
            [
                {
                    "archetype": archetype,
                    "fold": fold,
                    "parameter": parameter,
                    "r_hat": 1.021 if (archetype, parameter) == ("intermediate", "slope_mu") else 1.002,
                    "ess_bulk": 1804.0,
                    "ess_tail": 2210.0,
                    "divergences": 2 if (archetype, fold) == ("short_track", "2023") else 0,
                }
                for archetype in (*JUDGED, ALL_ARCHETYPES)
                for fold in ("2022", "2023")
                for parameter in parameters
            ]
        ),
        "identification": pl.DataFrame(
            [
                {
                    "archetype": archetype,
                    "parameter": parameter,
                    "mean": -0.07,
                    "lower": -0.13,
                    "upper": 0.01,
                    "contraction": 0.07 if parameter == "slope_sigma" else 0.83,
                    "informed": parameter != "slope_sigma",
                }
                for archetype in JUDGED
                for parameter in parameters
            ]
        ),
        "predictive_checks": predictive_checks(),
        "fits": {str(archetype): example_fit(seed) for seed, archetype in enumerate(JUDGED[:1])},
        "comparison": comparison_table(),
        "forecast": next_race(),
        "forecast_events": next_race_events(),
        "forecast_title": "Daytona 500, season 2025, round 1",
        "forecast_archetype": str(JUDGED[0]),
        "forecast_notes": [
            "Calibrated with 12 earlier races of the archetype superspeedway.",
            "The grid is set.",
        ],
        "provenance": {"source": "simulated", "seasons": "2021-2024", "seed": "42", "constraints": "9f" * 32},
    }
    return ReportContent(**(content | changes))


def page_with_empty_pictures(content: ReportContent) -> str:
    """HTML page of a report whose pictures are empty images: tests of its text need not draw them."""
    keys = [picture.key for picture in build_document(content).pictures]
    return render_html(content, dict.fromkeys(keys, b""))


def empty_content(**changes: object) -> ReportContent:
    """Nothing judged, nothing fitted: the first season of a new history."""
    full = example_content()
    tables = (
        "metrics",
        "joint_events",
        "curves",
        "monitoring",
        "pit",
        "states",
        "slopes",
        "convergence",
        "identification",
        "predictive_checks",
    )
    emptied = {
        **{name: getattr(full, name).clear() for name in tables},
        "verdicts": pl.concat(
            verdict_table(
                "network",
                archetype,
                {
                    ALL_RACES: [
                        Verdict(market, "cannot tell yet", None, [Evidence("", "", "", "Nothing judged.")])
                        for market in (ALL_MARKETS, *MARKETS)
                    ]
                },
            )
            for archetype in ARCHETYPES
        ),
        "skipped_events": {},
        "fits": {},
        "comparison": None,
        "forecast": None,
        "forecast_events": None,
        "forecast_archetype": "",
        "forecast_notes": [],
        "provenance": {},
    }
    return example_content(**(emptied | changes))
