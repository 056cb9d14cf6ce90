"""Tests of the report: complete, self-contained, readable, and the same in both forms."""

import re
import shutil
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES, parse_archetype
from calibration_pipeline.markets import MARKETS
from calibration_pipeline.report import (
    ReportContent,
    archetype_pictures,
    render_html,
    render_markdown,
    report_pictures,
    words,
)
from calibration_pipeline.report.assembly import NextRaceForecast
from calibration_pipeline.report.blocks import Bullets, Table
from calibration_pipeline.report.document import build_document
from calibration_pipeline.report.numbers import estimate, number
from calibration_pipeline.report.sections.joint import joint_event_blocks, joint_event_table
from calibration_pipeline.report.sections.next_race import forecast_section
from calibration_pipeline.report.sections.scores import GROUPS, metric_tables
from calibration_pipeline.report.words import VERDICTS
from calibration_pipeline.schemas.frames import EFFECTS
from calibration_pipeline.schemas.frames import RULINGS as FRAME_RULINGS
from calibration_pipeline.seasons import ALL_RACES
from helpers.example_report import ERAS, RULINGS, empty_content, example_content, page_with_empty_pictures
from helpers.images import image_size
from helpers.paths import ROOT
from helpers.rendered import HOSTILE, RenderedMarkdown, on_one_line

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source"}


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
    return example_content()


@pytest.fixture(scope="module")
def markdown(content: ReportContent) -> str:
    return render_markdown(content)


@pytest.fixture(scope="module")
def pictures(content: ReportContent) -> dict[str, bytes]:
    return report_pictures(content)


@pytest.fixture(scope="module")
def html(content: ReportContent, pictures: dict[str, bytes]) -> str:
    return render_html(content, pictures)


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
    assert len(alts) == len(pictures) == 3 * (4 + 2 + 1 + 2) + 6 + 4
    assert len(set(alts)) == len(alts)
    assert all(len(alt) > 20 for alt in alts)


def test_links_inside_the_page_lead_somewhere(page: Page) -> None:
    """Test that anchors exist and are unique."""
    anchors = page.values("section", "id")
    assert len(set(anchors)) == len(anchors)
    inner = [link[1:] for link in page.values("a", "href") if link.startswith("#")]
    assert set(inner) == set(anchors)


def test_first_screen_is_the_matrix_of_verdicts(html: str) -> None:
    """Test that each era has a row an archetype, whose coloured cells have words, before any section."""
    first_screen = html[html.index("<header>") : html.index("<section")]
    matrix = first_screen[first_screen.index('<div class="matrix">') : first_screen.index('class="legend"')]
    columns = re.findall(r'<th scope="col" class="text">(.*?)</th>', matrix)
    assert columns == ["Archetype", "Summary", *(market.capitalize() for market in MARKETS)]
    assert re.findall(r"colspan=\"10\"><span>(.*?)</span>", matrix) == ["Races from 2022", "All scored races"]
    rows = [row for row in matrix.split("<tr>") if "<td" in row]
    assert len(rows) == len(ERAS) * len(ARCHETYPES)
    for index, row in enumerate(rows):
        era, a = divmod(index, len(ARCHETYPES))
        anchor = ARCHETYPES[a].value.replace("_", "-")
        assert f'<a href="#{anchor}">{ARCHETYPES[a].label}</a> <small>36 races</small>' in row
        found = re.findall(r'<td class="text (\w+)">([\w ]+)(?: <small>(.*?)</small>)?</td>', row)
        rulings = [RULINGS[(m + era + a) % len(RULINGS)] for m in range(len(columns) - 1)]
        assert [cell[:2] for cell in found] == [(VERDICTS[r].style, VERDICTS[r].badge) for r in rulings]
        effects = [small.partition(";")[0] for _, _, small in found]
        assert effects == ["", *(EFFECTS[m % len(EFFECTS)] for m in range(1, len(columns) - 1))]
        needed = ["40 more races needed" in small for _, _, small in found]
        assert needed[1:] == [ruling == "cannot tell yet" for ruling in rulings[1:]]
    for words_of_ruling in VERDICTS.values():
        assert words_of_ruling.meaning in unescape(first_screen)


def test_evidence_stands_in_the_section_of_the_archetype(markdown: str) -> None:
    """Test the rows of one market: its ruling, then raw beside recalibrated."""
    section = markdown[markdown.index("## Intermediate") : markdown.index("## Short track")]
    assert "- Trust after recalibration: win, top 5," in section
    rows = [line for line in section.splitlines() if line.startswith("|")]
    win = rows.index("| **Win: do not trust; recalibration: costs** |  |  |  |")
    interval = "0.900 (0.800 to 1.000)"
    assert rows[win + 1 : win + 3] == [
        f"| Slope (inverse temperature) | 0.8 to 1.25 | {interval} | {interval} |",
        "| Gain from recalibration, log score, nats a race | above 0 |  | 0.90000 (0.80000 to 1.00000) |",
    ]


def test_eras_without_races_of_their_own_are_left_out(content: ReportContent) -> None:
    verdicts = content.verdicts.filter((pl.col("archetype") != "short_track") | (pl.col("era") == ALL_RACES))
    matrix = build_document(example_content(verdicts=verdicts)).matrix
    assert [row[0].text for row in matrix.rows] == [
        "Races from 2022",
        *(archetype.label for archetype in ARCHETYPES if archetype != "short_track"),
        "All scored races",
        *(archetype.label for archetype in ARCHETYPES),
    ]


def test_a_next_race_of_an_archetype_without_verdicts_says_so(content: ReportContent) -> None:
    """As after `run --archetypes` on a fresh store."""
    others = content.verdicts.filter(pl.col("archetype") != content.forecast_archetype)
    markdown = render_markdown(example_content(verdicts=others))
    section = markdown[markdown.index("## Next race") :]
    assert "not judged in this report, since its verdicts are not stored" in section
    assert len(section.splitlines()) > 10


@pytest.mark.parametrize(("grid", "starts"), [("set", ["31", "32"]), ("drawn", ["n/a", "n/a"])])
def test_start_positions_need_a_set_grid(content: ReportContent, grid: str, starts: list[str]) -> None:
    """The start positions of a drawn grid are the order of expected form, and no grid."""
    assert content.forecast is not None
    chances = content.forecast.head(2).with_columns(start_position=pl.Series([31, 32]))
    race = xr.Dataset(attrs={"grid": grid})
    next_race = NextRaceForecast(race, chances, pl.DataFrame(), [], content.forecaster_chances)
    section = forecast_section(replace(content, forecast=next_race.shown_chances))
    cars = next(block for block in section.blocks if isinstance(block, Table))
    assert [row[cars.columns.index("Start")].text for row in cars.rows] == starts


@pytest.mark.parametrize(("forecaster", "claims"), [("network", True), ("mine", False)])
def test_fits_of_a_users_file_are_not_known(content: ReportContent, forecaster: str, claims: bool) -> None:
    """Only the network's own fits are known to be older than the races that judge them."""
    verdicts = content.verdicts.with_columns(forecaster=pl.lit(forecaster))
    text = render_markdown(replace(content, verdicts=verdicts))
    assert (words.FITTED_BEFORE in text) is claims
    assert (words.FITTED_UNKNOWN in text) is not claims
    assert words.HOW_JUDGED in text
    assert "no fit had seen" not in text


def test_verdicts_have_words_for_every_ruling() -> None:
    """Test that the report knows all rulings."""
    assert tuple(VERDICTS) == FRAME_RULINGS


def hostile_content() -> ReportContent:
    """A report in which every text that comes from a source or a user is hostile."""
    full = example_content()
    assert full.forecast is not None
    assert full.forecast_events is not None
    names = pl.Series((HOSTILE * 2)[: full.forecast.height])
    event = full.joint_events.filter(event="count(dnf) >= 8")
    return example_content(
        verdicts=full.verdicts.filter(line=1)
        .with_columns(pl.lit(HOSTILE).alias("evidence"), quantity=pl.lit(""))
        .explode("evidence")
        .with_columns(line=pl.int_range(1, len(HOSTILE) + 1).over("archetype", "era", "market")),
        joint_events=pl.concat(event.with_columns(event=pl.lit(text)) for text in HOSTILE),
        skipped_events={text: text for text in HOSTILE},
        forecast=full.forecast.with_columns(driver=names, car_number=names),
        forecast_events=pl.concat(
            full.forecast_events[:1].with_columns(event=pl.lit(text)) for text in HOSTILE
        ),
        forecast_title=" ".join(HOSTILE),
        forecast_notes=HOSTILE,
        warnings=HOSTILE,
        provenance={text: text for text in HOSTILE},
        title=" ".join(HOSTILE),
    )


@pytest.mark.slow
def test_text_from_a_source_becomes_no_element(page: Page) -> None:
    """Test that names and messages are displayed as they are written, in both forms."""
    content = hostile_content()
    references = {address for _, address in words.REFERENCES}
    html = Page(page_with_empty_pictures(content))
    assert {tag for tag, _ in html.attributes} <= {tag for tag, _ in page.attributes}
    assert [name for _, names in html.attributes for name in names if name.startswith("on")] == []
    assert all(source.startswith("data:") for source in html.values("img", "src"))
    assert {link for link in html.values("a", "href") if not link.startswith("#")} == references
    for figures in (None, "figures"):
        markdown = RenderedMarkdown(render_markdown(content, figures))
        allowed = {"h1", "h2", "p", "ul", "li", "strong", "em", "a", "code", "img"}
        assert markdown.elements <= allowed | {"table", "thead", "tbody", "tr", "th", "td"}
        keys = [picture.key for picture in build_document(content).pictures]
        pictures = {f"figures/{key}.png" for key in keys} if figures else set()
        assert set(markdown.addresses) == references | pictures
        assert [link for link in markdown.bare_links if "evil" in link.lower()] == []
    for shown in (" ".join("".join(html.text).split()), " ".join(markdown.text.split())):
        assert [text for text in HOSTILE if shown.count(on_one_line(text)) < 3 * len(ARCHETYPES)] == []


def test_ordinary_names_are_written_plainly(html: str, markdown: str) -> None:
    assert "Driver &lt;0&gt; &amp; Co" in html
    assert "Driver &lt;0> & Co" in markdown


def test_simulated_seasons_are_named_as_such(html: str) -> None:
    """Test that nobody takes simulated races for real ones."""
    assert "These races are simulated" in html
    assert "These races are simulated" not in render_html(empty_content(source="nascar_feed"))


def test_forms_hold_the_same(content: ReportContent, page: Page, pictures: dict[str, bytes]) -> None:
    """Test that every heading, row and figure of the page is in its Markdown twin."""
    markdown = render_markdown(content, figures="figures")
    plain = RenderedMarkdown(markdown).text
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


def test_markdown_tables_are_rectangular(markdown: str) -> None:
    """Test that all rows of a table have as many cells as its head."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", markdown, flags=re.MULTILINE)
    assert len(blocks) > 10
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_pictures_have_one_width_and_safe_keys(pictures: dict[str, bytes]) -> None:
    """Test that every figure is a whole image as wide as a phone, under a key that is safe as a file name."""
    for key, png in pictures.items():
        width, height = image_size(png)
        assert width == 748
        assert height > 300
        assert re.fullmatch(r"[a-z0-9_-]+", key)


def test_an_empty_history_is_reported() -> None:
    """Test that the report of an empty history states that nothing has been judged or fitted."""
    page = Page(render_html(empty_content()))
    text = " ".join(page.text)
    assert text.count("No race of this archetype has been judged yet.") == len(ARCHETYPES)
    assert "Nothing has been fitted yet." in text
    assert "No race is announced" in text
    assert page.values("img", "src") == []
    assert "None" not in render_markdown(empty_content()).replace("None was recorded", "")


def test_unknown_interval_and_r_hat_are_marked() -> None:
    """Test that null is never shown as a number."""
    full = example_content()
    nulls = [pl.lit(None, dtype=pl.Float64).alias(name) for name in ("lower", "upper")]
    content = example_content(
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
    assert "| Head-to-head slope (wanted: 1) | 0.78 | 1.02 |" in markdown


def test_worst_diagnostics_are_found_and_marked(markdown: str) -> None:
    """Test that one bad parameter and one bad fold show in the summary, divergences counted once a fit."""
    assert "| Intermediate | 2 | 1.021 (wanted: below 1.01) | 1,804 | 2,210 | 0 |" in markdown
    assert "| Short track | 2 | 1.002 | 1,804 | 2,210 | 2 (wanted: 0) |" in markdown


def test_metrics_stand_side_by_side(markdown: str) -> None:
    """Test one row of scores word by word."""
    forecasts = "72.1 % (69.2 to 75.0 %) | 79.3 % (76.1 to 82.5 %)"
    assert f"| Finishes in the interval of 80 % (wanted: 80 %) | {forecasts} |" in markdown


def test_references_of_skills_are_named(markdown: str) -> None:
    """Test that skills name their reference, and that paired gains stand with the recalibrated forecast."""
    assert "| CRPS skill, against every car equal (larger is better) | 0.121 (0.116 to 0.126) |" in markdown
    assert "| Brier skill, head to head, against Bradley-Terry (larger is better) | 0.031" in markdown
    assert (
        "| CRPS skill, against the raw forecast (larger is better) |  | 0.024 (0.023 to 0.025) |" in markdown
    )


def test_small_print_of_scores_is_folded(content: ReportContent, html: str) -> None:
    """Test that the first table has groups, and that errors of estimation stand in a folded one."""
    tables = metric_tables(content.metrics.filter(archetype="superspeedway"))
    assert [table.folded for table in tables] == [False, True, True]
    groups = [row[0].text for row in tables[0].rows if len(row) == 1]
    assert groups == list(GROUPS)
    (crps,) = [row for row in tables[2].rows if row[0].text == "CRPS, positions"]
    assert [cell.text for cell in crps[1:]] == ["made up crps", "0.0040", "0.0040", "1.40", "1.40"]
    assert (
        '<tr class="group"><th scope="rowgroup" class="text" colspan="3"><span>Calibration</span></th></tr>'
        in html
    )


def test_joint_events_are_described_in_words(content: ReportContent) -> None:
    """Test the sentences on all events together, on dependence, and on recalibrated against raw."""
    text = " ".join(joint_event_words(content))
    assert "Raw: 4 joint events together contradict the forecast (p = 0.016), top(5) & running" in text
    assert "Recalibrated: 4 joint events together agree with the results (p = 0.800)." in text
    assert "The results reject independent cars: led(1) & top(10), both_teammates(top(10))." in text
    assert "Too few races to separate dependence from independence: count(dnf) >= 8." in text
    assert "Events marked * have almost no information" in text
    assert "on no event; least gain, nats a race: top(5) & running 0.011 [−0.002 to 0.024]." in text


def test_a_worse_joint_event_is_named() -> None:
    """Test that an event on which recalibrating cost more than chance would is not passed over."""
    events = example_content().joint_events
    worse = (pl.col("forecast") == "recalibrated") & (pl.col("event") == "count(dnf) >= 8")
    ends = {"gain_over_raw": -0.05, "gain_over_raw_lower": -0.08, "gain_over_raw_upper": -0.02}
    events = events.with_columns(
        pl.when(worse).then(value).otherwise(pl.col(name)).alias(name) for name, value in ends.items()
    )
    text = " ".join(joint_event_words(example_content(joint_events=events)))
    assert "worse than raw, gain in nats a race: count(dnf) >= 8 −0.050 [−0.080 to −0.020]." in text


def test_dependence_that_costs_is_named() -> None:
    """Test that the report names events that independent cars would have forecast better."""
    events = example_content().joint_events
    overdone = pl.col("event") == "count(dnf) >= 8"
    ends = {"gain": -0.2, "gain_lower": -0.3, "gain_upper": -0.1}
    events = events.with_columns(
        pl.when(overdone).then(value).otherwise(pl.col(name)).alias(name) for name, value in ends.items()
    )
    text = " ".join(joint_event_words(example_content(joint_events=events)))
    assert "Independent cars forecast better" in text
    assert "count(dnf) >= 8 −0.200 [−0.300 to −0.100]." in text


def test_dependence_is_judged_with_its_power(content: ReportContent) -> None:
    """Test that an event without power has no ruling, and one not about dependence is marked."""
    rows = joint_event_table(content.joint_events.filter(archetype="superspeedway")).rows
    assert {row[0].text: row[4][:2] for row in rows} == {
        "top(5) & running": ("not tested *", ""),
        "led(1) & top(10)": ("yes", "independent: p = 0.010, power 95 %"),
        "both_teammates(top(10))": ("yes", "independent: p = 0.010, power 95 %"),
        "count(dnf) >= 8": ("unclear", "independent: p = 0.300, power 35 %"),
    }


def joint_event_words(content: ReportContent) -> list[str]:
    blocks = joint_event_blocks(content.joint_events.filter(archetype="superspeedway"))
    return [item for block in blocks if isinstance(block, Bullets) for item in block.items]


def test_parameters_that_the_data_do_not_inform_are_named(markdown: str) -> None:
    """Test that assumptions are named in words, and predictive checks are shown."""
    assert "Superspeedway: the data do not inform slope_sigma; these rest on the prior." in markdown
    assert "| slope_sigma | 0.07 (assumed) | 0.07 (assumed) | 0.07 (assumed) |" in markdown
    checked = "0.51 | 0.52 (0.11 to 0.91) | 0.52 (0.47 to 0.55) | 45 %"
    assert f"| Superspeedway | rank correlation of forecast order and finish | {checked} |" in markdown
    assert "- The fits reproduce the observed statistics." in markdown
    full = example_content()
    missed = full.predictive_checks.with_columns(tail_probability=pl.lit(0.01))
    doubtful = render_markdown(example_content(predictive_checks=missed))
    assert "Short track: the fit does not reproduce the observed cars that retired (tail pro" in doubtful


def test_diagnostic_pictures_are_folded(html: str, content: ReportContent) -> None:
    """Test that pictures of the fits open on request, one group a fitted archetype."""
    fitted = list(content.fits)
    assert html.count("<summary>Pictures of the latest fit: ") == len(fitted)
    assert {key.split("-", 1)[1] for key in report_pictures_of(content, "superspeedway-")} >= {
        "ppc-dist",
        "ppc-pit",
        "ppc-pava",
        "ranks",
        "energy",
    }


@pytest.mark.slow
def test_pictures_of_an_archetype_are_drawn_once(content: ReportContent) -> None:
    archetype, every = "superspeedway", [picture.key for picture in build_document(content).pictures]
    own = [
        frame.filter(archetype=archetype)
        for frame in (content.metrics, content.joint_events, content.curves, content.pit, content.monitoring)
    ]
    drawn = archetype_pictures(parse_archetype(archetype), *own, content.fits[archetype])
    assert set(drawn) == {key for key in every if key.startswith("superspeedway-")}
    missing = [key for key in every if key.startswith("short_track-")][:2]
    existing = {key: key.encode() for key in every if key not in missing}
    assert set(drawn) < set(existing)
    found = report_pictures(content, existing)
    assert list(found) == every
    assert all(found[key] == key.encode() for key in existing)
    assert all(image_size(found[key])[0] == 748 for key in missing)


def report_pictures_of(content: ReportContent, start: str) -> list[str]:
    return [picture.key for picture in build_document(content).pictures if picture.key.startswith(start)]


def test_pictures_turn_dark_with_the_page(html: str) -> None:
    """Test that pictures, drawn on white, are not glaring on a dark page."""
    dark = html[html.index("prefers-color-scheme: dark") :]
    assert "img { filter: invert(.9) hue-rotate(180deg); }" in dark[: dark.index("* {")]


def test_calibrations_are_compared(markdown: str, page: Page) -> None:
    """Test that both forms show the comparison, mark uncertain values, and name the criterion."""
    assert "| Pooled | 0.0 | 0.0 | 6.2 | 75 % | 0.45 |" in markdown
    assert "| Per archetype | −1.2 | 0.5 | 9.0 | 25 % | 0.85 (wanted: at most 0.7) |" in markdown
    assert "| Raw | −1,420.8 | 30.0 | 0.0 | 0 % | 0.00 |" in markdown
    text = " ".join(page.text)
    for sentence in ("leave-one-out, 144 races as the units", "which use earlier races only."):
        assert sentence in markdown
        assert sentence in text
    assert "Model comparison" not in render_markdown(empty_content())


@pytest.mark.parametrize("table", ["verdicts", "metrics", "joint_events", "pit", "forecast"])
def test_missing_column_is_named(table: str) -> None:
    """Test that a table which lacks a column is refused by name."""
    frame = getattr(example_content(), table)
    column = frame.columns[0]
    with pytest.raises(ValueError, match=f"Argument {table} lacks the columns {column}"):
        example_content(**{table: frame.drop(column)})


def test_numbers_are_written_for_people() -> None:
    assert number(-1234.5678, 2) == "−1,234.57"
    assert number(float("nan")) == "n/a"
    assert estimate(0.5, None, None, 1, as_percent=True).text == "50.0 %"
    assert estimate(-0.5, -0.75, 0.25, 2)[:2] == ("−0.50", "−0.75 to 0.25")


def test_sample_report_is_small_and_names_no_folder() -> None:
    """Test that the sample can be sent to others: one file below 4 MB, without a path of whoever made it."""
    sample = ROOT / "docs" / "sample_report.html"
    html = sample.read_text(encoding="utf-8")
    assert sample.stat().st_size < 4e6
    text = " ".join(Page(html).text)
    assert re.search(r"(^|\s)(/|~|[A-Z]:\\)\w", text) is None
    assert "NUTS target acceptance" in text
    for archetype in ARCHETYPES:
        assert f"{archetype.label}</a>" in html


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
