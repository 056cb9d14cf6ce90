"""Tests of the report: complete, self-contained, readable, and the same in both forms."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.report import ReportContent, render_html, render_markdown, report_pictures
from calibration_pipeline.report.document import build_document
from calibration_pipeline.report.numbers import estimate, number
from calibration_pipeline.report.words import VERDICTS
from calibration_pipeline.schemas.frames import (
    CalibrationCurves,
    JointEventTable,
    MetricTable,
    ModelComparison,
)
from calibration_pipeline.verification.verdicts import Verdict

RULINGS = list(VERDICTS)
JUDGED = ARCHETYPES[:3]
"""The last kind of track has no race yet."""
EVENTS = ["top(5) & running", "led(1) & top(10)", "both_teammates(top(10))", "count(dnf) >= 8"]
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source"}
ESTIMATES = {
    ("crps", ""): (8.2, 7.9, "smaller is better"),
    ("log_score", ""): (-3.52, -3.49, "larger is better"),
    ("rps", ""): (0.214, 0.209, "smaller is better"),
    ("coverage", "50 %"): (0.437, 0.492, "nominal is best"),
    ("coverage", "80 %"): (0.721, 0.793, "nominal is best"),
    ("coverage", "95 %"): (0.905, 0.946, "nominal is best"),
    ("brier", "win"): (0.0251, 0.0249, "smaller is better"),
    ("brier", "top 5"): (0.098, 0.096, "smaller is better"),
    ("brier", "top 10"): (0.161, 0.158, "smaller is better"),
    ("brier", "head to head"): (0.221, 0.219, "smaller is better"),
    ("head_to_head_slope", ""): (0.78, 1.02, "nominal is best"),
    ("crps_skill", ""): (0.121, 0.143, "larger is better"),
    ("log_gain", ""): (0.132, 0.161, "larger is better"),
}


def metric_table() -> pl.DataFrame:
    rows = []
    for archetype in JUDGED:
        for (quantity, level), (raw, recalibrated, orientation) in ESTIMATES.items():
            values = {
                "raw": raw,
                "recalibrated": recalibrated,
                "start_order": 1.1 * raw,
                "climatology": 1.2 * raw,
            }
            rows += [
                {
                    "archetype": archetype,
                    "forecast": forecast,
                    "quantity": quantity,
                    "level": level,
                    "estimate": value,
                    "lower": value - 0.04 * abs(value),
                    "upper": value + 0.04 * abs(value),
                    "n_races": 36,
                    "n_cars": 1322,
                    "orientation": orientation,
                    "estimator": "made up",
                }
                for forecast, value in values.items()
            ]
    return MetricTable.validate(pl.DataFrame(rows))


def curve_table() -> pl.DataFrame:
    predicted = np.linspace(0.05, 0.75, 8)
    frames = [
        pl.DataFrame(
            {
                "archetype": archetype,
                "forecast": forecast,
                "event": event,
                "predicted": predicted,
                "observed": 0.3 + slope * (predicted - 0.3),
                "lower": np.clip(0.22 + slope * (predicted - 0.3), 0, 1),
                "upper": 0.38 + slope * (predicted - 0.3),
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
    rows = [
        {
            "archetype": archetype,
            "forecast": forecast,
            "event": event,
            "predicted": observed + error,
            "observed": observed,
            "lower": observed - 0.08,
            "upper": observed + 0.08,
            "calibration_error": abs(error),
            "z": -error / 0.04,
            "n_races": 36,
            "n_cases": 180,
        }
        for archetype in JUDGED
        for event, observed in zip(EVENTS, (0.41, 0.66, 0.28, 0.17), strict=True)
        for forecast, error in {"raw": 0.07, "recalibrated": -0.02}.items()
    ]
    return JointEventTable.validate(pl.DataFrame(rows))


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
    return pl.DataFrame(
        {
            "driver": [f"Driver <{i}> & Co" for i in range(38)],
            "car_number": [str(i) for i in range(38)],
            "start_position": [None, *range(2, 39)],
            "win": win,
            "top5": np.clip(4.5 * win, 0, 1),
            "top10": np.clip(7.5 * win, 0, 1),
            "dnf": np.full(38, 0.11),
        }
    )


def made_up_content(**changes: object) -> ReportContent:
    parameters = ("slope_mu", "slope_sigma", "noise_sigma", "intercept")
    content = {
        "title": "Can the simulated races be trusted?",
        "source": "simulated",
        "verdicts": [
            Verdict(
                archetype, ruling, [f"Raw: head-to-head slope is 0.780 for {archetype}.", "A second line."]
            )
            for archetype, ruling in zip(ARCHETYPES, RULINGS, strict=True)
        ],
        "metrics": metric_table(),
        "joint_events": joint_event_table(),
        "skipped_events": {"same_make(top(3))": "the source does not know the cars' makes"},
        "curves": curve_table(),
        "pit": pit_table(),
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
                for archetype in JUDGED
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
                    "contraction": 0.83,
                }
                for archetype in JUDGED
                for parameter in parameters
            ]
        ),
        "comparison": comparison_table(),
        "forecast": next_race(),
        "forecast_title": "Daytona 500, season 2025, round 1",
        "provenance": {"source": "simulated", "seasons": "2021-2024", "seed": "42", "constraints": "9f" * 32},
    }
    return ReportContent(**(content | changes))


def empty_content(**changes: object) -> ReportContent:
    """Nothing judged, nothing fitted: the first season of a new history."""
    full = made_up_content()
    tables = ("metrics", "joint_events", "curves", "pit", "slopes", "convergence", "identification")
    emptied = {
        **{name: getattr(full, name).clear() for name in tables},
        "verdicts": [Verdict(archetype, "cannot tell yet", []) for archetype in ARCHETYPES],
        "skipped_events": {},
        "comparison": None,
        "forecast": None,
        "provenance": {},
    }
    return made_up_content(**(emptied | changes))


class Page(HTMLParser):
    """Reads a page, and fails where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [a[attribute] or "" for t, a in self.attributes if t == tag and attribute in a]


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return made_up_content()


@pytest.fixture(scope="module")
def pictures(content: ReportContent) -> dict[str, bytes]:
    return report_pictures(content)


@pytest.fixture(scope="module")
def html(content: ReportContent) -> str:
    return render_html(content)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_page_needs_nothing_from_outside(html: str, page: Page) -> None:
    """Test that no script, style sheet, image or font is fetched; only references may be followed."""
    tags = {tag for tag, _ in page.attributes}
    assert not tags & {"script", "link", "iframe", "object", "embed"}
    assert all(source.startswith("data:image/png;base64,") for source in page.values("img", "src"))
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_is_described(page: Page, pictures: dict[str, bytes]) -> None:
    """Test that each figure has its own alternative text."""
    alts = page.values("img", "alt")
    assert len(alts) == len(pictures) == 3 * 5 + 2
    assert len(set(alts)) == len(alts)
    assert all(len(alt) > 20 for alt in alts)


def test_links_inside_the_page_lead_somewhere(page: Page) -> None:
    """Test that anchors exist and are unique."""
    anchors = page.values("section", "id")
    assert len(set(anchors)) == len(anchors)
    inner = [link[1:] for link in page.values("a", "href") if link.startswith("#")]
    assert set(inner) == set(anchors)


def test_first_screen_has_one_verdict_an_archetype(html: str) -> None:
    """Test that name, badge, meaning and first evidence stand before any section."""
    first_screen = html[html.index("<header>") : html.index("<section")]
    for archetype, ruling in zip(ARCHETYPES, RULINGS, strict=True):
        assert f"{archetype.label}</a>" in first_screen
        assert f'{VERDICTS[ruling].style}">{VERDICTS[ruling].badge}</span>' in first_screen
        assert f"slope is 0.780 for {archetype}." in first_screen
    assert "A second line." not in first_screen


def test_verdicts_have_words_for_every_ruling() -> None:
    """Test that the report knows all that can be ruled."""
    ruling = Verdict.__annotations__["verdict"]
    assert set(RULINGS) == set(ruling.__args__)


def test_text_from_outside_is_escaped(html: str, content: ReportContent) -> None:
    """Test that names cannot become markup, in either form."""
    assert "Driver &lt;0&gt; &amp; Co" in html
    assert "<0>" not in html
    markdown = render_markdown(content)
    assert r"Driver \<0\> & Co" in markdown
    hostile = empty_content(title='<script>alert("x")</script>|*a*\n# b')
    assert "<script>" not in render_html(hostile)
    assert render_markdown(hostile).startswith(r'# \<script\>alert("x")\</script\>\|\*a\*' + r" \# b" + "\n")


def test_simulated_seasons_are_named_as_such(html: str) -> None:
    """Test that nobody takes simulated races for real ones."""
    assert "These races are simulated" in html
    assert "These races are simulated" not in render_html(empty_content(source="nascar_feed"))


def test_forms_hold_the_same(content: ReportContent, page: Page, pictures: dict[str, bytes]) -> None:
    """Test that every heading, row and figure of the page is in its Markdown twin."""
    markdown = render_markdown(content, figures="figures")
    plain = re.sub(r"\\(.)", r"\1", markdown)
    document = build_document(content)
    text = " ".join(page.text)
    for section in document.sections:
        assert section.heading in plain
        assert section.heading in text
        for block in section.blocks:
            for row in getattr(block, "rows", []):
                assert all(cell.text in plain and cell.text in text for cell in row)
    links = re.findall(r"\]\(figures/([\w-]+)\.png\)", markdown)
    assert links == list(pictures)


def test_markdown_tables_are_rectangular(content: ReportContent) -> None:
    """Test that all rows of a table have as many cells as its head."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", render_markdown(content), flags=re.MULTILINE)
    assert len(blocks) > 10
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_pictures_are_png(pictures: dict[str, bytes]) -> None:
    """Test that every figure is drawn, under a key that is safe as a file name."""
    for key, png in pictures.items():
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert re.fullmatch(r"[a-z0-9_-]+", key)


def test_nothing_yet_is_said_not_hidden() -> None:
    """Test that an empty history makes a report that says so."""
    page = Page(render_html(empty_content()))
    text = " ".join(page.text)
    assert text.count("No race of this kind has been judged yet.") == len(ARCHETYPES)
    assert "Nothing has been fitted yet." in text
    assert "No race is announced" in text
    assert page.values("img", "src") == []
    assert "None" not in render_markdown(empty_content()).replace("None was recorded", "")


def test_unknown_interval_and_r_hat_are_said() -> None:
    """Test that null is never shown as a number."""
    full = made_up_content()
    nulls = [pl.lit(None, dtype=pl.Float64).alias(name) for name in ("lower", "upper")]
    content = made_up_content(
        metrics=full.metrics.with_columns(nulls),
        joint_events=full.joint_events.with_columns(nulls, z=pl.lit(None, dtype=pl.Float64)),
        convergence=full.convergence.with_columns(
            pl.lit(None, dtype=pl.Float64).alias(name) for name in ("r_hat", "ess_bulk", "ess_tail")
        ),
    )
    markdown = render_markdown(content)
    assert "not computable" in markdown
    assert "None" not in markdown
    assert re.search(r"\bnan\b", markdown) is None
    assert "| Head-to-head slope | 0.78 | 1.02 |" in markdown


def test_worst_diagnostics_are_found_and_marked(content: ReportContent) -> None:
    """Test that one bad parameter and one bad fold show in the summary, divergences counted once a fit."""
    markdown = render_markdown(content)
    assert "| Intermediate | 2 | 1.021 (wanted: below 1.01) | 1,804 | 2,210 | 0 |" in markdown
    assert "| Short track | 2 | 1.002 | 1,804 | 2,210 | 2 (wanted: 0) |" in markdown


def test_metrics_stand_side_by_side(content: ReportContent) -> None:
    """Test one row of scores word by word."""
    assert (
        "| Coverage of the interval of 80 % | 72.1 % (69.2 to 75.0 %) | 79.3 % (76.1 to 82.5 %) |"
        in render_markdown(content)
    )


def test_calibrations_are_compared(content: ReportContent) -> None:
    """Test that both forms show the comparison, mark what is unsure, and say what decides."""
    markdown = render_markdown(content)
    assert "| Pooled | 0.0 | 0.0 | 6.2 | 75 % | 0.45 |" in markdown
    assert "| Per archetype | −1.2 | 0.5 | 9.0 | 25 % | 0.85 (wanted: at most 0.7) |" in markdown
    assert "| Raw | −1,420.8 | 30.0 | 0.0 | 0 % | 0.00 |" in markdown
    text = " ".join(Page(render_html(content)).text)
    for said in ("leave-one-out log score, 144 races as the units", "earlier races only, decide."):
        assert said in markdown
        assert said in text
    assert "Model comparison" not in render_markdown(empty_content())


@pytest.mark.parametrize("table", ["metrics", "joint_events", "pit", "forecast"])
def test_missing_column_is_named(table: str) -> None:
    """Test that a table which lacks a column is refused by name."""
    frame = getattr(made_up_content(), table)
    column = frame.columns[0]
    with pytest.raises(ValueError, match=f"Argument {table} lacks the columns {column}"):
        made_up_content(**{table: frame.drop(column)})


def test_two_verdicts_on_one_archetype_are_refused() -> None:
    verdict = Verdict(Archetype.INTERMEDIATE, "trust", [])
    with pytest.raises(ValueError, match="Argument verdicts must have one a kind of track"):
        made_up_content(verdicts=[verdict, verdict])


def test_numbers_are_written_for_people() -> None:
    assert number(-1234.5678, 2) == "−1,234.57"
    assert number(float("nan")) == "n/a"
    assert estimate(0.5, None, None, 1, as_percent=True).text == "50.0 %"
    assert estimate(-0.5, -0.75, 0.25, 2) == ("−0.50", "−0.75 to 0.25")


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1200, 360])
def test_page_fits_the_screen(html: str, tmp_path: Path, width: int) -> None:
    """Test that the page never scrolls sideways, on a desk or a phone, and fetches nothing."""
    playwright = pytest.importorskip("playwright.sync_api")
    file = tmp_path / "page.html"
    file.write_text(html)
    requests = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
