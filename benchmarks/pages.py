"""Tables and pictures of the documents, rendered from the result files: python -m benchmarks.pages.

A table stands between the marks `<!-- NAME -->` and `<!-- end of NAME -->`; the text around it stays.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks import change_tables
from benchmarks.performance import pipeline, samplers
from benchmarks.result_files import markdown_table, read_results, shown, shown_estimate
from calibration_pipeline.plots.figures import figure_png
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES

DOCS = Path(__file__).parents[1] / "docs"
Cells = dict[str, str]


class Headline(NamedTuple):
    """A row of the table of docs/performance.md.

    Attributes
    ----------
    label : str
        Measurement and unit.
    result, row, value : str, dict, str
        Result file, the cells that identify a row, and the column of the value.
    comparison : str
        Definition of the ratio.
    other : dict
        Cells that identify the row of the ratio, where they differ from `row`.
    ratio : str
        Column of the ratio.
    """

    label: str
    result: str
    row: Cells
    value: str
    comparison: str = ""
    other: Cells = {}
    ratio: str = "ratio"


HEADLINES = (
    Headline(
        "start of `calibration-pipeline --help`, s",
        "startup",
        {"command": "calibration-pipeline --help"},
        "s",
        "time ÷ `python -c pass`",
    ),
    Headline(
        "exact CRPS of 4,000 ensembles of 1,500 members, ms",
        "scores",
        {"predictions": "ensembles, scenarios first", "tool": "compute_crps"},
        "ms",
        "scoringrules with Numba ÷ ours",
        {"tool": "scoringrules, numba, qd"},
    ),
    Headline(
        "exact CRPS of 4,000 finish positions, ms",
        "scores",
        {"predictions": "finish positions", "tool": "discrete_crps, from the stored table"},
        "ms",
        "scoringrules with Numba ÷ ours",
        {"tool": "scoringrules, numba, rps_score, from the table"},
    ),
    Headline(
        "scenarios of 40 cars, thousand a second",
        "scenarios",
        {"cars": "40", "batch": "1024"},
        "network_thousand_per_s",
        "time ÷ that of the random numbers alone",
        ratio="time_ratio_to_random_numbers",
    ),
    *(
        Headline(
            f"aggregates of {n} million lap rows, s",
            "telemetry",
            {"lap_rows": f"{n}000000", "tool": "ours"},
            "s",
            "time ÷ the better of DuckDB and Polars",
        )
        for n in (20, 100)
    ),
    *(
        Headline(
            f"{kind} map, 360 races, {comparison}: effective samples a second",
            "samplers",
            {"comparison": comparison, "map": kind, "races": "360", "sampler": "this project"},
            "ess_per_s",
            "rate ÷ BlackJAX's",
            {"sampler": "BlackJAX"},
        )
        for kind, comparison in (("latent", "tabulated"), ("latent", "end to end"), ("marginal", "tabulated"))
    ),
    Headline(
        "marginal map, 1,440 races, on the CPU, s",
        "devices",
        {"measurement": "marginal map, 1,440 races, 4 x (500 + 1000)"},
        "cpu_s",
        "CPU ÷ GPU",
        ratio="cpu_over_gpu",
    ),
    *(
        Headline(
            f"whole pipeline, {seasons} seasons of {scenarios:,} scenarios, s",
            "pipeline",
            {"seasons": str(seasons), "scenarios": str(scenarios)},
            "wall_s",
        )
        for seasons, scenarios in ((4, 2000), (13, 1000), (40, 1000))
    ),
    Headline(
        "`run --update` with a new race, s", "new_race", {"command": "run --update", "new_races": "1"}, "s"
    ),
    *(
        Headline(f"`{label}, s", "forecasters", {"command": command}, "s", "time ÷ that of `run`")
        for label, command in (
            ("run`, nothing compiled", "run"),
            ("run` with a forecaster more, nothing compiled", "run, one forecaster more"),
            ("run --update` with a forecaster added", "run --update, one added"),
            ("run --update` with three more added", "run --update, three more added"),
        )
    ),
)


def performance_table() -> str:
    """Return the main table of docs/performance.md."""
    rows = []
    for line in HEADLINES:
        ratio = shown(_find(line.result, line.row | line.other), line.ratio) if line.comparison else ""
        rows.append(
            {
                "measurement": line.label,
                "this project": shown(_find(line.result, line.row), line.value),
                "ratio of": line.comparison,
                "ratio": ratio,
                "data": f"`{line.result}.csv`",
            }
        )
    return markdown_table(rows)


def commits_table() -> str:
    """Return the table of the default run of this and of earlier commits of docs/performance.md."""
    labels = {
        "commit": "commit",
        "s": "nothing compiled, s",
        "compiled_s": "compiled, s",
        "ratio": "time of now ÷ time",
        "peak_mib": "memory, MiB",
        "events": "events",
        "commits": "transactions",
        "packages": "packages",
        "installed_mib": "installed, MiB",
    }
    return _labelled("commits", labels)


def laws_table() -> str:
    """Return the table of the laws of cost by job of docs/performance.md."""
    labels = {
        "job": "job",
        "constant": "constant",
        "by_season": "× S",
        "by_season_squared": "× S²",
        "by_scenarios": "× S N / 1,000",
        "largest_error": "largest relative error",
    }
    return _labelled("scaling", labels)


def hubs_table() -> str:
    """Return the table of estimated hubs of docs/performance.md."""
    labels = {
        "forecasters": "forecasters",
        "series": "series",
        "seasons": "seasons",
        "scenarios": "scenarios",
        "core_hours": "core hours",
        "hours_2_workers": "hours, 2 workers",
        "hours_8_workers": "hours, 8 workers",
    }
    return _labelled("hubs", labels)


def _labelled(result: str, labels: Mapping[str, str]) -> str:
    """Return the table of a result file's labelled columns."""
    rows = [{label: shown(row, name) for name, label in labels.items()} for row in read_results(result)]
    return markdown_table(rows)


def _find(result: str, cells: Cells) -> Cells:
    """Return the first row of a result file that has these cells."""
    return next(row for row in read_results(result) if cells.items() <= row.items())


SCORES = {
    "spearman": "Spearman ρ",
    "crps_skill": "CRPS skill",
    "log_gain": "log gain, nats",
    "head_to_head_skill": "H2H skill",
    "head_to_head_slope": "H2H slope",
    "top10_skill": "top-10 skill",
    "win_skill": "win skill",
    "coverage_50": "50 %",
    "coverage_80": "80 %",
    "coverage_95": "95 %",
}
"""Quantity -> column of the table of docs/forecasts.md."""
ARCHETYPE_ROWS = ("without superspeedways", "superspeedway", "intermediate", "short_track", "road_course")
FORECAST_ROWS = (
    *(("full", races) for races in ("all", *ARCHETYPE_ROWS)),
    *((name, "all") for name in ("full, recalibrated", "ordinary", "no_incidents", "ordinary_no_incidents")),
    ("start order", "all"),
)


def forecasts_table() -> str:
    """Return the main table of docs/forecasts.md: estimates ± half the width of their interval."""
    held_out = [row for row in read_results("forecast_scores") if row["seasons"] == "2021-2023"]
    rows = []
    for forecast, races in FORECAST_ROWS:
        chosen = [row for row in held_out if (row["forecast"], row["races"]) == (forecast, races)]
        cells = {row["quantity"]: f"{row['estimate']} ± {row['half_width']}" for row in chosen}
        labels = {"forecast": forecast, "races": races, "n": chosen[0]["n_races"]}
        rows.append(labels | {label: cells.get(name, "-") for name, label in SCORES.items()})
    return markdown_table(rows)


def repair_table() -> str:
    """Return the table of distorted networks of docs/repair.md."""
    rows = [
        {
            "forecast": row["forecast"],
            "map": row["map"],
            "lost": shown_estimate(row, "lost"),
            "gained": shown_estimate(row, "gained"),
            "won back, %": shown_estimate(row, "won_back_percent").replace("+", ""),
        }
        for row in read_results("repair")
        if row["races"] == "all"
    ]
    return markdown_table(rows)


def simulators_table() -> str:
    """Return the table of simulators of docs/repair.md."""
    labels = {
        "law": "law",
        "simulator": "simulator",
        "lost": "lost",
        "latent_gained": "latent gains",
        "latent_won_back_percent": "won back, %",
        "marginal_gained": "marginal gains",
        "marginal_won_back_percent": "won back by it, %",
    }
    return _labelled("simulators", labels)


def state_table() -> str:
    """Return the table of the state on real seasons of docs/state.md."""
    labels = {
        "state_over_map": "state over map",
        "state_over_raw": "state over raw",
        "map_over_raw": "map over raw",
    }
    rows = [
        estimates
        | {"retired: observed": row["retired_observed"]}
        | {name: row[f"retired_{name}"] for name in ("raw", "map", "state")}
        for estimates, row in zip(_by_races("state", labels), read_results("state"), strict=True)
    ]
    return markdown_table(rows)


def winner_table() -> str:
    """Return the table of the winner's log score on real seasons of docs/state.md."""
    labels = {
        "winner_state_over_raw": "winner: state over raw",
        "winner_state_over_map": "winner: state over map",
        "winner_state_over_untilted": "winner: with over without tilt",
        "state_over_untilted": "all cars: with over without tilt",
    }
    return markdown_table(_by_races("state", labels))


def own_scenarios_table() -> str:
    """Return the table of re-ranked scenarios without a front group of docs/state.md."""
    labels = {
        "winner_tilted_over_raw": "winner: state over raw",
        "winner_tilted_over_untilted": "winner: with over without tilt",
        "cars_tilted_over_raw": "all cars: state over raw",
        "temperature_raw": "temperature: raw",
        "temperature_without_tilt": "without tilt",
        "temperature_with_tilt": "with tilt",
    }
    return markdown_table(_by_races("own_scenarios", labels))


def _by_races(file: str, labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the rows of a result file by seasons and races, with the labelled estimates."""
    return [
        {
            "seasons": row["seasons"],
            "races": row["races"],
            "n": row["n_races"],
            **{label: shown_estimate(row, name) for name, label in labels.items()},
        }
        for row in read_results(file)
    ]


def choices_table() -> str:
    """Return the table of the front tilt's constants of docs/state.md."""
    rows = [
        {
            "constants": row["choice"],
            "front groups' orders": shown_estimate(row, "fronts"),
            "winner": shown_estimate(row, "winner"),
        }
        for row in read_results("state_choices")
        if row["winner"] and row["choice"] != "frozen"
    ]
    return markdown_table(rows)


def jumps_table() -> str:
    """Return the table of planted jumps of docs/state.md."""
    labels = {
        "planted": "planted",
        "lost": "lost",
        "coverage": "coverage",
        "state_races": "races until half is found: state",
        "map_races": "map",
    }
    return _labelled("jumps", labels)


def leaderboard_table() -> str:
    """Return the table of docs/leaderboard.md: races of all archetypes, by market."""
    rows = [
        {
            "market": row["market"],
            "decisive pairs": f"{row['decisive']} of {row['pairs']}",
            "in order, %": row["in_order_percent"],
            "seeds in order, %": row["seeds_in_order_percent"],
            "blend: gain": row["blend_gain_thousandths"],
            "interval, %": row["blend_in_interval_percent"],
            "letters, %": row["blend_in_letters_percent"],
            "paired, %": row["blend_paired_percent"],
        }
        for row in read_results("leaderboard")
        if row["races"] == ALL_ARCHETYPES
    ]
    return markdown_table(rows)


TABLES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "performance.md": {
        "results": performance_table,
        "commits": commits_table,
        "laws": laws_table,
        "hubs": hubs_table,
    },
    "forecasts.md": {"scores": forecasts_table},
    "leaderboard.md": {"order": leaderboard_table},
    "repair.md": {"networks": repair_table, "simulators": simulators_table},
    "state.md": {
        "seasons": state_table,
        "winner": winner_table,
        "choices": choices_table,
        "own scenarios": own_scenarios_table,
        "jumps": jumps_table,
        "scores": change_tables.score_table,
        "winner and retirements": change_tables.race_score_table,
        "slopes": change_tables.slope_table,
        "numbers of retirements": change_tables.retirement_table,
    },
}
PICTURES: Mapping[str, tuple[str, Callable[[list[Cells]], Figure]]] = {
    "performance_samplers": ("samplers", samplers.draw),
    "performance_pipeline": ("pipeline_assets", pipeline.draw),
}
"""Picture in docs/images -> result file, and the function that draws it."""


def put_section(page: str, name: str, text: str) -> str:
    r"""Return the page with a text between the marks of a section.

    Raises
    ------
    ValueError
        If the page does not contain each of the two marks exactly once and in order.

    Examples
    --------
    >>> put_section("Before <!-- a --> old <!-- end of a --> after", "a", "new")
    'Before <!-- a -->\n\nnew\n\n<!-- end of a --> after'
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed or page.count(start) > 1 or page.count(end) > 1:
        raise ValueError(f"The page must hold {start} and then {end}, each once.")
    return f"{before}{start}\n\n{text}\n\n{end}{after}"


def render_page(page: str, text: str) -> str:
    """Return the text of a page with its tables rendered from the result files."""
    for name, table in TABLES[page].items():
        text = put_section(text, name, table())
    return text


def write_pages() -> None:
    """Write the tables of all pages, and the pictures."""
    for page in TABLES:
        path = DOCS / page
        path.write_text(render_page(page, path.read_text(encoding="utf-8")), encoding="utf-8")
    for picture, (result, draw) in PICTURES.items():
        figure = draw(read_results(result))
        (DOCS / "images" / f"{picture}.png").write_bytes(figure_png(figure, dpi=110))


if __name__ == "__main__":
    write_pages()
