"""Rates of wrong verdicts by number of races.

    python -m benchmarks.verdict_errors --replications 1000

Histories of 12, 36 and 108 races are drawn from known laws (`simulated_races`). Forecasts are right, wrong in
one respect, or at the edge of a limit. The library computes intervals, joint tests and rulings.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.simulated_forecasts import (
    N_RESULTS,
    N_SCENARIOS,
    Forecast,
    World,
    event_rows,
    make_forecast,
    make_world,
    metric_rows,
    select_dependence_events,
    true_values,
)
from benchmarks.simulated_races import LAWS, draw_races
from calibration_pipeline.plots.figures import GREEN, SKY, VERMILION, figure_axes
from calibration_pipeline.schemas.frames import RULINGS
from calibration_pipeline.verification.verdicts import judge

RACES = (12, 36, 108)
N_TEMPLATES = 120
N_UNIFORMS = 500
"""Number of replicate histories of the joint tests."""
FIT_ERRORS, FIT_WEIGHTS = (-0.1, 0.0, 0.1), (1 / 6, 2 / 3, 1 / 6)
"""Errors of a recalibration's log slope and their probabilities: sd 0.06, as in fits to some fifty races."""
ARCHETYPE = "short_track"
RULING_STYLES = (
    {"color": GREEN},
    {"color": SKY, "hatch": "//"},
    {"color": VERMILION, "hatch": "xx"},
    {"color": "#dddddd"},
)
"""Styles of the bars, in the order of `RULINGS`."""


@dataclass(frozen=True)
class Case:
    """A raw and a recalibrated forecast, and the wrong rulings for them.

    Attributes
    ----------
    name, law : name of the case, and law of the races
    raw : parameters of the law that the raw forecast changes
    repaired : whether recalibration finds the law up to `FIT_ERRORS`; otherwise it changes nothing
    wrong : wrong rulings
    """

    name: str
    law: str
    raw: dict[str, float]
    repaired: bool
    wrong: tuple[str, ...]


TRUSTED = ("trust", "trust after recalibration")
WORLDS = {**LAWS, "lottery": replace(LAWS["short track"], skill=2.5, noise=1.5)}
INDEPENDENT = {"together": False, "team": 0.0}
CASES = (
    Case("calibrated, short track", "short track", {}, True, ("do not trust",)),
    Case("calibrated, superspeedway", "superspeedway", {}, True, ("do not trust",)),
    Case("over-confident, repaired", "short track", {"sharpness": 2.6}, True, ("trust", "do not trust")),
    Case("over-confident", "short track", {"sharpness": 2.6}, False, TRUSTED),
    Case("under-confident", "short track", {"sharpness": 0.535}, False, TRUSTED),
    Case("race effects missing", "lottery", {"noise": 0.0, "sharpness": 0.6}, False, TRUSTED),
    Case("cars independent, short track", "short track", INDEPENDENT, False, TRUSTED),
    Case("cars independent, superspeedway", "superspeedway", INDEPENDENT, False, TRUSTED),
    Case("slope at its limit of .8", "short track", {"sharpness": 1.41}, False, TRUSTED),
    Case("slope at its limit of 1.25", "short track", {"sharpness": 0.72}, False, TRUSTED),
    Case("coverage at its limit of .55", "lottery", {"noise": 0.0, "sharpness": 0.74}, False, TRUSTED),
)  # fmt: skip


def simulate(
    case: Case, races: Sequence[int], n_replications: int, seed: int = 1, n_templates: int = N_TEMPLATES
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Rule on histories of one case.

    Returns
    -------
    rulings : polars.DataFrame
        case, n_races, ruling, share of histories with the ruling, and whether the ruling is wrong.
    raw : dict
        The raw forecast's slope, coverage and CRPS skill over all races and results.
    """
    rng = np.random.default_rng(seed)
    world = make_world(rng, WORLDS[case.law], n_templates)
    about = select_dependence_events(rng, world)
    raw = _changed(rng, world, case.raw)
    errors = FIT_ERRORS if case.repaired else ()
    repaired = [_changed(rng, world, {"sharpness": np.exp(error)} if error else {}) for error in errors]
    shares = []
    for n_races in races:
        uniforms = rng.random((N_UNIFORMS, n_races))
        rulings = [_rule(rng, world, raw, repaired, about, uniforms) for _ in range(n_replications)]
        keys = {"case": case.name, "n_races": n_races}
        shares += [
            keys
            | {
                "ruling": ruling,
                "share": rulings.count(ruling) / n_replications,
                "wrong": ruling in case.wrong,
            }
            for ruling in RULINGS
        ]
    return pl.DataFrame(shares), true_values(world, raw)


def _changed(rng: np.random.Generator, world: World, changes: dict[str, float]) -> Forecast:
    """Score a forecast that changes the law; without changes, the forecast is the true law."""
    drawn = draw_races(rng, world.law, world.fields, N_SCENARIOS, **changes) if changes else world.truth
    return make_forecast(rng, world, drawn)


def _rule(
    rng: np.random.Generator,
    world: World,
    raw: Forecast,
    repaired: Sequence[Forecast],
    about: NDArray,
    uniforms: NDArray,
) -> str:
    """Draw a history and rule on it."""
    n_races = uniforms.shape[1]
    chosen, result = rng.integers(len(world.size), size=n_races), rng.integers(N_RESULTS, size=n_races)
    forecasts = {"raw": raw}
    if repaired:
        forecasts["recalibrated"] = repaired[rng.choice(len(repaired), p=FIT_WEIGHTS)]
    metrics = pl.DataFrame(
        {"archetype": ARCHETYPE, "forecast": name, **row}
        for name, forecast in forecasts.items()
        for row in metric_rows(world, forecast, chosen, result)
    )
    events = pl.DataFrame(
        {"archetype": ARCHETYPE, "forecast": name, **row}
        for name, forecast in forecasts.items()
        for row in event_rows(world, forecast, about, chosen, result, uniforms)
    )
    if not repaired:
        same = pl.lit("recalibrated").alias("forecast")
        metrics, events = (pl.concat([rows, rows.with_columns(same)]) for rows in (metrics, events))
    return judge(ARCHETYPE, metrics, events, n_races).verdict


HEADER = [
    "| forecast | slope; coverage at 50, 80, 95 %; skill | races | " + " | ".join(RULINGS) + " | wrong |",
    "|---|---|---|" + "---|" * (len(RULINGS) + 1),
]


def markdown(rulings: pl.DataFrame, raw: dict[str, float]) -> list[str]:
    """Return the Markdown rows of a case; wrong rulings are bold."""
    coverage = ", ".join(f"{raw[level]:.3f}" for level in ("50 %", "80 %", "95 %"))
    values = f"{raw['slope']:.2f}; {coverage}; {raw['skill']:.3f}"
    lines = []
    for (case, n_races), rows in rulings.group_by("case", "n_races", maintain_order=True):
        shares = [f"{share:.1%}" for share in rows["share"]]
        shown = [
            f"**{share}**" if wrong else share for share, wrong in zip(shares, rows["wrong"], strict=True)
        ]
        wrong = rows.filter("wrong")["share"].sum()
        lines.append(f"| {case} | {values} | {n_races} | {' | '.join(shown)} | {wrong:.1%} |")
    return lines


def draw(rulings: pl.DataFrame, path: Path) -> None:
    """Draw the shares of rulings as bars, a bar for each case and number of races."""
    rows = rulings.select("case", "n_races").unique(maintain_order=True).reverse()
    figure, ax = figure_axes(width=7.5, height=0.28 * rows.height + 1.2)
    left = np.zeros(rows.height)
    for ruling, style in zip(RULINGS, RULING_STYLES, strict=True):
        share = rows.join(rulings.filter(ruling=ruling), on=["case", "n_races"], maintain_order="left")[
            "share"
        ]
        ax.barh(np.arange(rows.height), share, left=left, label=ruling, **style)
        left += share.to_numpy()
    ax.set_yticks(np.arange(rows.height), [f"{case}, {n}" for case, n in rows.iter_rows()])
    ax.margins(y=0.01)
    ax.set(xlim=(0, 1), xlabel="share of histories", ylabel="forecast, races")
    ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.3, 1.0), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--replications", type=int, default=1000, help="histories for each case and number of races, 1000"
    )
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--picture", type=Path, help="picture to draw, .png")
    options = parser.parse_args()
    lines, rulings = list(HEADER), []
    print("\n".join(lines))
    for case in CASES:
        found, raw = simulate(case, RACES, options.replications)
        rulings.append(found)
        lines += markdown(found, raw)
        print("\n".join(lines[-len(RACES) :]), flush=True)
    if options.output:
        options.output.write_text("\n".join([*lines, ""]))
    if options.picture:
        draw(pl.concat(rulings), options.picture)


if __name__ == "__main__":
    main()
