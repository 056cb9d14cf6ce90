"""Report sections across archetypes: state, slopes, convergence, comparison, methods, provenance."""

import polars as pl

from calibration_pipeline.archetypes import ARCHETYPES, parse_archetype
from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.mcmc.convergence import ESS_GOOD, R_HAT_GOOD
from calibration_pipeline.plots.series import count
from calibration_pipeline.report import words
from calibration_pipeline.report.blocks import (
    Block,
    Cell,
    Definitions,
    Gallery,
    References,
    Section,
    Table,
    Text,
)
from calibration_pipeline.report.content import ALL_ARCHETYPES, ReportContent
from calibration_pipeline.report.numbers import estimate, number, percent
from calibration_pipeline.report.pictures import (
    diagnostic_pictures,
    forest_picture,
    slope_picture,
    state_pictures,
)

PARETO_K_GOOD = 0.7


def state_section(content: ReportContent) -> Section:
    """Return the section on calibration slope, incident shift and front tilt before every race."""
    states = content.states
    if states.is_empty():
        return Section("states", "Sharpness over time", [Text("No race has enough earlier races yet.")])
    of_scenarios = content.form is Form.SCENARIOS
    labels = {"slope": "Slope", "shift": "Shift of the incident logit", "tilt": "Front tilt"}
    shown = list(labels) if of_scenarios else ["slope"]
    markets = ["market"] if "market" in states.columns else []
    rows = [
        [
            *(Cell(row[name].capitalize()) for name in markets),
            Cell(_label(row["archetype"])),
            Cell(f"{row['season']}, race {row['race_order'] % 100}"),
            Cell(str(row["n_calibration_races"])),
            *(estimate(row[name], row[f"{name}_lower"], row[f"{name}_upper"], 2) for name in shown),
        ]
        for row in states.iter_rows(named=True)
    ]
    text = Text(
        "The calibration follows the races: after each race, of whatever archetype, slope, incident shift "
        "and front tilt move. A race is recalibrated with their values before it. A positive shift means "
        "more retirements. The front tilt is a further factor on the sharpness among the leading cars."
        if of_scenarios
        else "The calibration follows the races: after each race, of whatever archetype, the slope moves. A "
        "race is recalibrated with its value before it."
    )
    columns = [
        *(name.capitalize() for name in markets),
        "Archetype",
        "Race",
        "Earlier races of the archetype",
        *(labels[name] for name in shown),
    ]
    caption = "Slope, incident shift and front tilt" if of_scenarios else "Slope before every race"
    table = Table(caption, columns, rows, folded=True, n_text=2 + len(markets))
    return Section("states", "Sharpness over time", [text, Gallery(state_pictures(states)), table])


def slope_section(content: ReportContent) -> Section:
    """Return the section on how the calibration slope moved over the seasons."""
    slopes = content.slopes
    if slopes.is_empty():
        return Section("slopes", "Calibration by season", [Text("No season has been fitted yet.")])
    rows = [
        [Cell(_label(archetype)), Cell(str(season)), estimate(value, lower, upper, 2)]
        for archetype, season, value, lower, upper in slopes.select(
            "archetype", "season", "estimate", "lower", "upper"
        ).iter_rows()
    ]
    table = Table("Calibration slope by season", ["Archetype", "Season", "Slope"], rows, folded=True)
    blocks: list[Block] = [Gallery([slope_picture(slopes)]), table]
    if content.fits:
        blocks.append(Gallery([forest_picture(content.fits)], "Forest of slopes by archetype and season"))
    return Section("slopes", "Calibration by season", blocks)


def convergence_section(content: ReportContent) -> Section:
    """Return the section on the convergence of the fits."""
    fits = content.convergence
    if fits.is_empty():
        return Section("convergence", "Did the fits converge?", [Text("Nothing has been fitted yet.")])
    text = Text(
        f"Each fit runs independent chains that must agree. Limits: R-hat below {R_HAT_GOOD}, both effective "
        f"sample sizes above {ESS_GOOD}, no divergences."
    )
    galleries: list[Block] = [
        Gallery(
            diagnostic_pictures(fit, parse_archetype(name)),
            f"Pictures of the latest fit: {_label(name)} (predictive checks, chains)",
        )
        for name, fit in content.fits.items()
    ]
    tables: list[Block] = [text, _worst_table(fits), _fit_table(fits)]
    return Section("convergence", "Did the fits converge?", [*tables, *galleries])


def comparison_section(content: ReportContent) -> list[Section]:
    """Return the section on the leave-one-out comparison of the calibrations, if there is one."""
    comparison = content.comparison
    if comparison is None or comparison.is_empty():
        return []
    n_races = count(comparison["n_races"].item(0), "race")
    text = Text(
        f"Log score of each calibration for one race, fitted to all others (leave-one-out, {n_races} as the "
        "units; 0 is the best). The comparison is descriptive: a race may be predicted from later races. "
        "Verdicts come from the walk-forward scores, which use earlier races only."
    )
    rows = [
        [
            Cell(row["model"].capitalize()),
            Cell(number(row["elpd_diff"], 1)),
            Cell(number(row["dse"], 1)),
            Cell(number(row["p"], 1)),
            Cell(percent(row["weight"], 0)),
            _pareto_k(row["worst_pareto_k"]),
        ]
        for row in comparison.iter_rows(named=True)
    ]
    columns = [
        "Calibration",
        "Behind the best, nats",
        "Standard error",
        "Effective parameters",
        "Stacking weight",
        "Worst Pareto k",
    ]
    table = Table("Model comparison", columns, rows)
    return [Section("comparison", "Model comparison", [text, table])]


def skipped_section(content: ReportContent) -> list[Section]:
    """Return the section on joint events that could not be judged, if there are any."""
    if not content.skipped_events:
        return []
    rows = [[Cell(event), Cell(reason)] for event, reason in content.skipped_events.items()]
    table = Table("Joint events that could not be judged", ["Event", "Why"], rows, n_text=2)
    return [Section("skipped", "Not judged", [table])]


def closing_sections(content: ReportContent) -> list[Section]:
    """Return methods, glossary and provenance."""
    methods: list[Block] = [Definitions(words.METHODS[content.form]), References(words.REFERENCES)]
    rows = [[Cell(name), Cell(value)] for name, value in content.provenance.items()]
    provenance = Table("Inputs needed to reproduce this report", ["", "Value"], rows, n_text=2)
    return [
        Section("methods", "Methods in brief", methods),
        Section("glossary", "Glossary", [Definitions(words.GLOSSARY)]),
        Section("provenance", "Provenance", [provenance] if rows else [Text("None was recorded.")]),
    ]


def _worst_table(fits: pl.DataFrame) -> Table:
    """Return the worst value of every diagnostic, one row an archetype."""
    by_fold = fits.group_by("archetype", "fold", maintain_order=True).agg(
        pl.max("r_hat"), pl.min("ess_bulk", "ess_tail"), pl.max("divergences")
    )
    worst = by_fold.group_by("archetype", maintain_order=True).agg(
        pl.len(), pl.max("r_hat"), pl.min("ess_bulk", "ess_tail"), pl.sum("divergences")
    )
    rows = [
        [
            Cell(_label(row["archetype"])),
            Cell(str(row["len"])),
            _r_hat(row["r_hat"]),
            _ess(row["ess_bulk"]),
            _ess(row["ess_tail"]),
            Cell(str(row["divergences"]), "wanted: 0" if row["divergences"] else ""),
        ]
        for row in worst.iter_rows(named=True)
    ]
    columns = [_fitted(fits), "Fits", "Worst R-hat", "Least bulk ESS", "Least tail ESS", "Divergences"]
    return Table("Worst diagnostics of all fits", columns, rows)


def _fit_table(fits: pl.DataFrame) -> Table:
    rows = [
        [
            Cell(_label(row["archetype"])),
            Cell(row["fold"]),
            Cell(row["parameter"]),
            _r_hat(row["r_hat"]),
            _ess(row["ess_bulk"]),
            _ess(row["ess_tail"]),
        ]
        for row in fits.iter_rows(named=True)
    ]
    columns = [_fitted(fits), "Fold", "Parameter", "R-hat", "Bulk ESS", "Tail ESS"]
    return Table("Every fit and parameter", columns, rows, folded=True, n_text=3)


def _r_hat(value: float | None) -> Cell:
    if value is None:
        return Cell("not computable")
    return Cell(number(value), f"wanted: below {R_HAT_GOOD}" if value >= R_HAT_GOOD else "")


def _ess(value: float | None) -> Cell:
    if value is None:
        return Cell("not computable")
    return Cell(number(value, 0), f"wanted: above {ESS_GOOD}" if value <= ESS_GOOD else "")


def _pareto_k(value: float) -> Cell:
    return Cell(number(value, 2), f"wanted: at most {PARETO_K_GOOD}" if value > PARETO_K_GOOD else "")


def _label(fitted: str) -> str:
    """Return the label of an archetype, a market or all archetypes."""
    if fitted == ALL_ARCHETYPES:
        return "All together"
    return parse_archetype(fitted).label if fitted in set(map(str, ARCHETYPES)) else fitted.capitalize()


def _fitted(fits: pl.DataFrame) -> str:
    """Return the heading of what each fit is of."""
    return "Market" if fits["archetype"].is_in(list(EVENT_MARKETS)).all() else "Archetype"
