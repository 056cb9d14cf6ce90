"""Charts show the values of their frames: the tests compare artists' data, not pixels."""

import sys

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.plots import charts, figures
from calibration_pipeline.plots.figures import FORECAST_STYLES
from helpers.images import assert_on_paper, image_size

RAW, RECALIBRATED = FORECAST_STYLES["raw"], FORECAST_STYLES["recalibrated"]


def curve_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "archetype": "superspeedway",
            "forecast": ["raw", "raw", "recalibrated", "recalibrated"],
            "event": "top 10",
            "predicted": [0.4, 0.1, 0.15, 0.3],
            "observed": [0.3, 0.2, 0.15, 0.35],
            "lower": [0.2, None, 0.1, 0.3],
            "upper": [0.5, None, 0.2, 0.6],
            "n_cases": [700, 596, 650, 646],
            "n_races": [36, 1, 36, 36],
        }
    )


def coverage_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "archetype": "short_track",
            "forecast": ["raw"] * 3 + ["recalibrated"] * 3,
            "quantity": "coverage",
            "level": ["50 %", "80 %", "95 %"] * 2,
            "estimate": [0.4, 0.7, 0.9, 0.5, 0.8, 0.95],
            "lower": [0.35, 0.65, 0.85, 0.45, 0.75, 0.9],
            "upper": [0.45, 0.75, 0.95, 0.55, 0.85, 1.0],
            "n_races": 12,
        }
    )


def pit_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "archetype": "road_course",
            "forecast": "raw",
            "u": [0.0, 0.5, 1.0],
            "ecdf": [0.0, 0.6, 1.0],
            "lower": [0.0, 0.4, 1.0],
            "upper": [0.0, 0.7, 1.0],
        }
    )


def events_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "archetype": "intermediate",
            "forecast": ["raw", "recalibrated", "raw", "recalibrated"],
            "event": ["top(5) & running"] * 2 + ["count(dnf) >= 8"] * 2,
            "predicted": [0.1, 0.12, 0.5, 0.4],
            "observed": [0.13, 0.13, 0.3, 0.3],
            "lower": [0.1, 0.1, None, None],
            "upper": [0.2, 0.2, None, None],
            "about_dependence": [False, False, True, True],
            "n_races": [18, 18, 1, 1],
        }
    )


def slopes_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "archetype": ["road_course", "road_course", "superspeedway"],
            "season": [2021, 2020, 2021],
            "estimate": [1.1, 0.9, 1.0],
            "lower": [0.9, 0.7, 0.8],
            "upper": [1.3, 1.1, 1.25],
        }
    )


def forecast_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "driver": ["Slow", "Fast", "Middling"],
            "win": [0.05, 0.25, 0.1],
            "top5": [0.2, 0.6, 0.4],
            "top10": [0.4, 0.8, 0.6],
        }
    )


def weights_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "archetype": ["road_course", "road_course", "superspeedway", "superspeedway"],
            "covariate": ["finish_form", "start_position"] * 2,
            "estimate": [0.5, -0.2, 0.2, -0.1],
            "lower": [0.3, -0.4, 0.1, -0.3],
            "upper": [0.7, 0.0, 0.3, 0.1],
        }
    )


DRAWINGS = [
    (charts.draw_calibration_curve, curve_frame()),
    (charts.draw_coverage, coverage_frame()),
    (charts.draw_pit, pit_frame()),
    (charts.draw_joint_events, events_frame()),
    (charts.draw_slope_by_season, slopes_frame()),
    (charts.draw_finish_distribution, forecast_frame()),
    (charts.draw_weights, weights_frame()),
]
AXES_AND_LEGENDS = {
    charts.draw_calibration_curve: (
        ("Predicted probability", "Observed share, 95 % interval"),
        ["Predicted = observed", "Raw (36 races, 1,296 cases)", "Recalibrated (36 races, 1,296 cases)"],
    ),
    charts.draw_coverage: (
        ("Central interval of the forecast", "Finishes inside, 95 % interval"),
        ["Nominal", "Raw (12 races)", "Recalibrated (12 races)"],
    ),
    charts.draw_pit: (
        ("Forecast probability of finishing as well or better (PIT)", "Share of cars − PIT"),
        ["Calibrated: the band holds this line", "Raw", "Raw, 95 % band"],
    ),
    charts.draw_joint_events: (
        ("Probability, and observed share with its 95 % interval", ""),
        ["Observed", "Raw", "Recalibrated"],
    ),
    charts.draw_slope_by_season: (
        ("Season", "Calibration slope, 95 % interval"),
        ["Superspeedway", "Road course"],
    ),
    charts.draw_finish_distribution: (("Probability", ""), ["Win", "Top 5", "Top 10"]),
    charts.draw_weights: (
        ("Weight in the log-strength, 95 % interval", ""),
        ["Superspeedway", "Road course"],
    ),
}


def new_axes() -> Axes:
    return figures.figure_axes()[1]


def line(ax: Axes, label: str) -> np.ndarray:
    """The points of the line with that label, (n, 2)."""
    (found,) = [each for each in ax.lines if each.get_label() == label]
    return np.asarray(found.get_xydata())


def legend_labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(("draw", "frame"), DRAWINGS)
def test_draws_on_the_given_axes_with_named_axes_and_legend(draw, frame):
    ax = new_axes()
    assert draw(ax, frame) is ax
    labels, legend = AXES_AND_LEGENDS[draw]
    assert (ax.get_xlabel(), ax.get_ylabel()) == labels
    assert legend_labels(ax) == legend


@pytest.mark.parametrize(("draw", "frame"), DRAWINGS)
def test_empty_frame_is_marked_no_races_yet(draw, frame):
    ax = draw(new_axes(), frame.clear())
    assert [text.get_text() for text in ax.texts] == ["no races yet"]
    assert not [*ax.lines, *ax.collections, *ax.patches]


@pytest.mark.parametrize("dpi", [72, 144])
def test_png_has_the_size_of_its_figure(dpi):
    ax = charts.draw_pit(new_axes(), pit_frame())
    assert image_size(figures.figure_png(ax.figure, dpi)) == (int(5.2 * dpi), int(4.6 * dpi))


@pytest.mark.parametrize(("draw", "frame"), DRAWINGS)
def test_everything_stays_on_the_paper(draw, frame):
    """No label, title or legend is cut at the figure's edge."""
    assert_on_paper(draw(new_axes(), frame).figure)


def test_names_of_any_length_stay_on_the_paper():
    names = ["Ricky Stenhouse Jr.", "John Hunter Nemechek", "Ty"]
    figure, ax = figures.figure_axes()
    charts.draw_finish_distribution(ax, forecast_frame().with_columns(driver=pl.Series(names)))
    assert_on_paper(figure)
    short = charts.draw_finish_distribution(new_axes(), forecast_frame())
    assert short.get_position().x0 < ax.get_position().x0


@pytest.mark.parametrize("letter", ["n", "W", "\u2031"])
def test_the_longest_names_leave_room_for_the_bars(letter):
    """Names of 100 wide characters leave a third of the figure, and differ at their ends."""
    names = [letter * 99 + end for end in "123"]
    figure, ax = figures.figure_axes()
    charts.draw_finish_distribution(ax, forecast_frame().with_columns(driver=pl.Series(names)))
    figure.draw_without_rendering()
    assert ax.get_position().x0 <= 0.7
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert {len(name) for name in shown} == {30}
    assert len(set(shown)) == 3


def test_a_figure_with_a_layout_of_its_own_keeps_it():
    """Charts make room for legends and names only where nothing else does."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    charts.draw_finish_distribution(figure.add_subplot(1, 2, 1), forecast_frame())
    charts.draw_pit(figure.add_subplot(1, 2, 2), pit_frame())
    assert_on_paper(figure)


@pytest.mark.parametrize("scale", [1e-1, 1e-2, 1e-3])
def test_small_differences_of_a_pit_leave_its_label_free(scale):
    u = pl.col("u")
    ends = [(u + scale * (pl.col(name) - u)).alias(name) for name in ("lower", "upper", "ecdf")]
    assert_on_paper(charts.draw_pit(new_axes(), pit_frame().with_columns(ends)).figure)


def test_reliability_stays_on_the_paper():
    figure, panels = figures.figure_pair("Superspeedway: head to head")
    charts.draw_reliability(panels, reliability_frame())
    assert_on_paper(figure)


@pytest.mark.parametrize("draw", [draw for draw, frame in DRAWINGS if "archetype" in frame.columns][:4])
def test_two_archetypes_in_one_picture_are_refused(draw):
    frame = dict(DRAWINGS)[draw]
    mixed = pl.concat([frame, frame.with_columns(archetype=pl.lit("intermediate_"))])
    with pytest.raises(ValueError, match="A plot shows one archetype, got"):
        draw(new_axes(), mixed)


def test_calibration_curve_shows_points_intervals_and_counts():
    ax = charts.draw_calibration_curve(new_axes(), curve_frame())
    assert ax.get_title() == "Superspeedway: top 10"
    assert legend_labels(ax) == [
        "Predicted = observed",
        "Raw (36 races, 1,296 cases)",
        "Recalibrated (36 races, 1,296 cases)",
    ]
    diagonal = line(ax, "Predicted = observed")
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    np.testing.assert_allclose(line(ax, "Recalibrated (36 races, 1,296 cases)"), [[0.15, 0.15], [0.3, 0.35]])
    np.testing.assert_allclose(line(ax, "Raw (36 races, 1,296 cases)"), [[0.4, 0.3]])
    hollow = [each for each in ax.lines if each.get_fillstyle() == "none" and len(each.get_xydata())]
    np.testing.assert_allclose(hollow[0].get_xydata(), [[0.1, 0.2]])
    assert hollow[0].get_color() == RAW.color
    assert ax.get_xlim() == ax.get_ylim() == (0, pytest.approx(0.6 * 1.08))


def reliability_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "archetype": "superspeedway",
            "forecast": ["raw", "raw", "recalibrated"],
            "event": "top 10",
            "predicted": [0.4, 0.1, 0.25],
            "predicted_from": [0.3, 0.0, 0.0],
            "predicted_to": [0.6, 0.2, 0.5],
            "observed": [0.3, 0.2, 0.27],
            "lower": [0.35, 0.05, None],
            "upper": [0.45, 0.15, None],
            "n_cases": [700, 596, 1296],
            "n_races": [36, 30, 36],
        }
    )


def test_reliability_shows_steps_and_band_of_each_forecast():
    _, panels = figures.figure_pair("Top 10")
    assert charts.draw_reliability(panels, reliability_frame()) is panels
    raw, recalibrated = panels
    assert [panel.get_title() for panel in panels] == ["Raw", "Recalibrated"]
    diagonal, steps = (np.asarray(each.get_xydata()) for each in raw.lines)
    np.testing.assert_array_equal(diagonal, [[0, 0], [1, 1]])
    np.testing.assert_allclose(steps, [[0.0, 0.2], [0.2, 0.2], [0.3, 0.3], [0.6, 0.3]])
    band = raw.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.05, 0.45))
    np.testing.assert_allclose(raw.collections[1].get_offsets(), [[0.1, 0.2], [0.4, 0.3]])
    assert [text.get_text() for text in raw.texts] == ["36 races\n1,296 cases"]
    assert raw.get_xlim() == recalibrated.get_ylim() == pytest.approx((0, 0.75))


def test_reliability_without_a_forecast_is_marked():
    _, panels = figures.figure_pair("Top 10")
    charts.draw_reliability(panels, reliability_frame().filter(forecast="raw"))
    assert [text.get_text() for text in panels[1].texts] == ["no races yet"]
    _, panels = figures.figure_pair("Top 10")
    charts.draw_reliability(panels, reliability_frame().clear())
    assert [text.get_text() for panel in panels for text in panel.texts] == ["no races yet"] * 2


@pytest.mark.parametrize("column", ["archetype", "event"])
def test_reliability_refuses_a_mixture(column):
    mixed = reliability_frame().with_columns(pl.Series(column, ["a", "b", "c"]))
    with pytest.raises(ValueError, match=f"A plot shows one {column}, got a, b, c"):
        charts.draw_reliability(figures.figure_pair("Top 10")[1], mixed)


def test_raw_and_recalibrated_look_the_same_everywhere():
    looks = []
    for draw, frame in (DRAWINGS[0], DRAWINGS[1], DRAWINGS[3]):
        ax = draw(new_axes(), frame)
        marked = {
            str(each.get_label()).split(" (")[0]: (each.get_color(), each.get_marker())
            for each in ax.lines
            if each.get_marker() not in ("None", "|") and not str(each.get_label()).startswith("_")
        }
        looks.append(marked)
    assert looks[0] == looks[1] == looks[2]
    assert looks[0] == {
        "Raw": (RAW.color, RAW.marker),
        "Recalibrated": (RECALIBRATED.color, RECALIBRATED.marker),
    }


@pytest.mark.parametrize("styles", [figures.FORECAST_STYLES, figures.ARCHETYPE_STYLES])
def test_no_two_series_share_colour_and_dash(styles):
    assert len({(style.color, style.marker) for style in styles.values()}) == len(styles)
    assert len({style.color for style in styles.values()}) == len(styles)


def test_coverage_stands_beside_the_nominal_share():
    ax = charts.draw_coverage(new_axes(), coverage_frame())
    nominal = [path.vertices[0, 1] for path in ax.collections[0].get_paths()]
    np.testing.assert_allclose(nominal, [0.5, 0.8, 0.95])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50 %", "80 %", "95 %"]
    np.testing.assert_allclose(line(ax, "Raw (12 races)")[:, 1], [0.4, 0.7, 0.9])
    np.testing.assert_allclose(line(ax, "Recalibrated (12 races)")[:, 1], [0.5, 0.8, 0.95])


def test_coverage_refuses_another_quantity():
    with pytest.raises(ValueError, match="quantity coverage, got crps"):
        charts.draw_coverage(new_axes(), coverage_frame().with_columns(quantity=pl.lit("crps")))


def test_pit_is_drawn_as_difference_to_uniform():
    ax = charts.draw_pit(new_axes(), pit_frame())
    np.testing.assert_allclose(line(ax, "Raw"), [[0, 0], [0.5, 0.1], [1, 0]], atol=1e-12)
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(-0.1)
    assert band[:, 1].max() == pytest.approx(0.2)


def test_pit_without_band_draws_the_curve_only():
    unknown = pit_frame().with_columns(lower=pl.lit(None), upper=pl.lit(None))
    ax = charts.draw_pit(new_axes(), unknown)
    assert not ax.collections
    assert legend_labels(ax) == ["Calibrated: the band holds this line", "Raw"]


def test_joint_events_show_observed_and_both_forecasts():
    ax = charts.draw_joint_events(new_axes(), events_frame())
    np.testing.assert_allclose(line(ax, "Observed"), [[0.13, 0], [0.3, 1]])
    np.testing.assert_allclose(line(ax, "Raw"), [[0.1, 0], [0.5, 1]])
    np.testing.assert_allclose(line(ax, "Recalibrated"), [[0.12, 0], [0.4, 1]])
    assert [text.get_text() for text in ax.texts] == [
        "top(5) & running *",
        "count(dnf) >= 8",
    ]
    np.testing.assert_allclose(ax.collections[0].get_paths()[0].vertices, [[0.1, 0], [0.2, 0]])


def test_slopes_are_in_order_of_season_and_archetype():
    ax = charts.draw_slope_by_season(new_axes(), slopes_frame())
    assert legend_labels(ax) == ["Superspeedway", "Road course"]
    road = line(ax, "Road course")
    np.testing.assert_allclose(road[:, 1], [0.9, 1.1])
    np.testing.assert_allclose(road[:, 0], [2020.06, 2021.06])
    assert ax.get_yscale() == "log"
    assert list(ax.get_xticks()) == [2020, 2021]


def long_slopes(seasons: int, width: float, last_width: float) -> pl.DataFrame:
    """Slopes of all archetypes, whose log intervals have half a width, the last season's another."""
    widths = np.full((len(ARCHETYPES), seasons), width)
    widths[:, -1] = last_width
    estimate = 0.9 + 0.1 * np.sin(np.arange(widths.size))
    return pl.DataFrame(
        {
            "archetype": np.repeat([str(archetype) for archetype in ARCHETYPES], seasons),
            "season": np.tile(np.arange(2026 - seasons, 2026), len(ARCHETYPES)),
            "estimate": estimate,
            "lower": estimate * np.exp(-widths.ravel()),
            "upper": estimate * np.exp(widths.ravel()),
        }
    )


@pytest.mark.parametrize("height", [3.4, 4.2, 4.6])
@pytest.mark.parametrize(
    "slopes",
    [
        slopes_frame(),
        long_slopes(1, 0.3, 0.3),
        long_slopes(3, 0.05, 0.08),
        long_slopes(6, 0.2, 1.2),
        long_slopes(12, 0.25, 0.7),
        long_slopes(40, 0.4, 3.0),
        long_slopes(4, 0.2, 0.5).with_columns(lower=pl.lit(None), upper=pl.lit(None)),
    ],
)
def test_no_slope_interval_crosses_a_label(slopes, height):
    figure, ax = figures.figure_axes(height=height)
    charts.draw_slope_by_season(ax, slopes)
    figure.draw_without_rendering()
    labels = [text.get_window_extent() for text in ax.texts]
    assert len(labels) == 2
    assert not any(label.overlaps(other) for label, other in zip(labels, labels[::-1], strict=True))
    intervals = [path for drawn in ax.collections for path in drawn.get_paths()]
    series = [drawn.get_path() for drawn in ax.lines if drawn.get_transform() is ax.transData]
    lines = [path.transformed(ax.transData) for path in intervals + series]
    assert len(lines) > len(slopes)
    assert not [line for label in labels for line in lines if line.intersects_bbox(label, filled=False)]
    assert all(ax.bbox.x0 <= label.x0 and label.x1 <= ax.bbox.x1 for label in labels)
    assert all(ax.bbox.y0 <= label.y0 and label.y1 <= ax.bbox.y1 for label in labels)


def test_slopes_far_below_1_have_a_tick_below_1():
    ax = charts.draw_slope_by_season(new_axes(), long_slopes(6, 0.2, 1.2))
    bottom, top = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if bottom <= tick <= top]
    assert min(ticks) < 1 < max(ticks)


def test_names_are_no_formulas():
    """Test that a dollar sign, which starts a formula in Matplotlib, is drawn as it is."""
    forecast = forecast_frame().with_columns(driver=pl.Series(["$x^$", "A$AP$_", r"$\frac$"]))
    events = events_frame().with_columns(event=pl.lit("$^$"))
    drivers = charts.draw_finish_distribution(new_axes(), forecast).get_yticklabels()
    assert [name.get_text() for name in drivers] == ["A$AP$_", r"$\frac$", "$x^$"]
    named = charts.draw_joint_events(new_axes(), events).texts
    assert [name.get_text() for name in named] == ["$^$ *"]
    assert not any(name.get_parse_math() for name in [*drivers, *named])


def test_finish_distribution_puts_the_likeliest_winner_on_top():
    ax = charts.draw_finish_distribution(new_axes(), forecast_frame())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Fast", "Middling", "Slow"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in ax.containers}
    assert widths == {"Top 10": [0.8, 0.6, 0.4], "Top 5": [0.6, 0.4, 0.2], "Win": [0.25, 0.1, 0.05]}
    assert "25.0 %" in [text.get_text() for text in ax.texts]


def test_weights_stand_in_rows_by_covariate():
    ax = charts.draw_weights(new_axes(), weights_frame())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["finish form", "start position"]
    np.testing.assert_allclose(line(ax, "Superspeedway"), [[0.2, -0.09], [-0.1, 0.91]])
    np.testing.assert_allclose(line(ax, "Road course"), [[0.5, 0.09], [-0.2, 1.09]])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_every_archetype_has_a_style():
    assert list(figures.ARCHETYPE_STYLES) == list(ARCHETYPES)


def test_figures_are_not_pyplots():
    figure, ax = figures.figure_axes(3, 2)
    assert isinstance(figure, Figure)
    assert ax.figure is figure
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_png_has_the_size_asked_for():
    figure, _ = figures.figure_axes(3, 2)
    png = figures.figure_png(figure, dpi=50)
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (150, 100)
