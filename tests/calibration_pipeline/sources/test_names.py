"""Matcher of drivers' names: spellings that are one driver, drivers that stay apart, and the real names."""

import json
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.sources.names import (
    NICKNAMES,
    driver_key,
    driver_keys,
    full_key,
    match_drivers,
    read_nicknames,
)
from helpers.paths import REAL_DATA

TABLES = [
    REAL_DATA / name
    for name in (
        "cup_results_2013_2023.parquet",
        "xfinity_results_2013_2024.parquet",
        "truck_results_2013_2024.parquet",
    )
]
FEED = REAL_DATA / "nascar_feed_2020_2021.zip"

WORDS = st.text("abcdefghilmnoprstuvyäéñøAÉ", min_size=3, max_size=9).filter(
    lambda word: driver_key(word) == full_key(word)
)
NAMES = st.tuples(WORDS, WORDS).map(" ".join)
RESPELLINGS = (
    str.upper,
    lambda name: f"* {name}(i)",
    lambda name: f"{name} # (P)",
    lambda name: f"{name}, Jr.",
    lambda name: f"{name} Jr",
    lambda name: f"{name} III",
    lambda name: ", ".join(reversed(name.split(" "))),
    lambda name: name.replace(" ", "   "),
)


@pytest.mark.parametrize(
    ("spellings", "key"),
    [
        (["A.J. Allmendinger", "AJ Allmendinger", "A J Allmendinger", "* a. j. ALLMENDINGER(i)"],
         "aj-allmendinger"),
        (["Martin Truex Jr.", "Martin Truex, Jr.", "Martin Truex", "Truex Jr., Martin", "Truex, Martin Jr."],
         "martin-truex"),
        (["Daniel Suárez", "Daniel Suarez", "SUAREZ, DANIEL", "Danny Sua\u0301rez"], "daniel-suarez"),
        (["Ricky Stenhouse Jr.", "Richard Stenhouse", "Rick Stenhouse Junior"], "richard-stenhouse"),
        (["John Hunter Nemechek #", "John H. Nemechek", "J.H. Nemechek"], "john-hunter-nemechek"),
        (["Bubba Wallace", "Darrell Wallace Jr."], "bubba-wallace"),
        (["Matt DiBenedetto", "Matthew Di Benedetto"], "matthew-dibenedetto"),
        (["Kevin O'Connell", "Kevin O’Connell", "Kevin OConnell"], "kevin-oconnell"),
        (["Parker Price-Miller", "Parker Price Miller"], "parker-price-miller"),
        (["J.R. Fitzpatrick", "JR Fitzpatrick", "Fitzpatrick, J.R."], "jr-fitzpatrick"),
        (["Jason A. White (Virginia)", "Jason A White"], "jason-a-white"),
    ],
)  # fmt: skip
def test_spellings_of_a_driver_share_a_key(spellings: list[str], key: str) -> None:
    assert {driver_key(name) for name in spellings} == {key}
    assert driver_key(key) == key
    for name in spellings:
        assert match_drivers([name], ["Somebody Else", *spellings[:1]]).matches == {name: spellings[0]}


def test_middle_initials_tell_drivers_apart() -> None:
    """Two drivers called Jason White raced trucks."""
    assert driver_key("Jason A. White") != driver_key("Jason M. White")


@given(NAMES, st.sampled_from(RESPELLINGS), st.sampled_from(RESPELLINGS))
def test_respelled_names_keep_their_key(name: str, first, second) -> None:
    assert driver_key(first(name)) == driver_key(second(name)) == driver_key(name)


@given(st.lists(st.text(max_size=40), max_size=8), st.lists(st.text(max_size=40), max_size=8))
def test_any_text_is_matched_once_or_not_at_all(names: list[str], known: list[str]) -> None:
    result = match_drivers(names, known)
    assert set(result.matches) | set(result.unmatched) == set(names)
    assert not set(result.matches) & set(result.unmatched)
    assert set(result.matches.values()) <= set(known)
    assert len(set(result.matches.values())) == len(result.matches)
    assert (set(names) & set(known)) - {""} <= set(result.matches)


@given(st.lists(NAMES, min_size=2, max_size=6, unique_by=driver_key), st.data())
def test_a_field_matches_itself_in_every_spelling(field: list[str], data: st.DataObject) -> None:
    respelled = {data.draw(st.sampled_from(RESPELLINGS))(name): name for name in field}
    assert match_drivers(respelled, field).matches == respelled


def test_two_drivers_of_a_race_never_become_one() -> None:
    family = ["Dale Earnhardt", "Dale Earnhardt Jr."]
    assert match_drivers(["Dale Earnhardt, Jr", "DALE EARNHARDT"], family).matches == {
        "Dale Earnhardt, Jr": "Dale Earnhardt Jr.",
        "DALE EARNHARDT": "Dale Earnhardt",
    }
    unclear = match_drivers(["D. Earnhardt", "Dale Earnhardt III"], family)
    assert unclear.matches == {}
    assert set(unclear.unmatched.values()) <= set(family)
    keys = driver_keys(pl.Series([*family, *family[1:], None]), pl.Series([1, 1, 2, 2])[[0, 1, 2, 3]])
    assert keys.to_list() == ["dale-earnhardt", "dale-earnhardt-jr", "dale-earnhardt", None]


def test_an_unmatched_name_has_the_nearest_known_name() -> None:
    result = match_drivers(["Kyle Bush", "Zzz"], ["Kyle Larson", "Kurt Busch", "Kyle Busch"])
    assert result.unmatched == {"Kyle Bush": "Kyle Busch", "Zzz": None}


def test_a_file_adds_names_and_keeps_drivers_apart(tmp_path: Path) -> None:
    path = tmp_path / "names.toml"
    path.write_text(
        '[given_names]\nJimmy = ["Jimbo"]\n[drivers]\n"Kyle Busch" = ["Rowdy Busch"]\n"Jo Doe Jr." = []\n'
    )
    mine = read_nicknames(str(path))
    assert driver_key("Jimbo Weller", mine) == driver_key("James Weller", mine) == "james-weller"
    assert driver_key("Rowdy Busch", mine) == "kyle-busch"
    assert (driver_key("Jo Doe, Jr.", mine), driver_key("Jo Doe", mine)) == ("jo-doe-jr", "jo-doe")
    assert driver_key("Jimbo Weller") == "jimbo-weller"
    assert read_nicknames(None) is NICKNAMES


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[names]\n", r"tables must be \[given_names\] and \[drivers\]; got \[names\]"),
        ('[drivers]\n"A B" = "C D"\n', r"\[drivers\] A B: it must be a list of names; got 'C D'"),
        ("[drivers]\n'A B' = [1]\n", r"must be a list of names; got \[1\]"),
        ("drivers = 1\n", "must be a list of names; got 1"),
        ("[drivers]\n'-' = []\n", "'-': it must have letters"),
        ("[given_names]\nrobert = ['Bill']\n", "one meaning; 'Bill' is also william"),
        ("[drivers", "at end of document"),
        ("x" * 1_000_001, "at most 1,000,000 bytes"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "names.toml"
    path.write_text(content)
    with pytest.raises(ValueError, match=problem) as refusal:
        read_nicknames(str(path))
    assert str(path) in str(refusal.value)


def real_names() -> pl.DataFrame:
    """Return race and name of every row of the three tables and of the feed's results and entry lists."""
    frames = [
        pl.read_parquet(path).select(
            race=pl.format("{} {} {}", pl.lit(path.stem), "Season", "Race"), name="Driver"
        )
        for path in TABLES
    ]
    rows = []
    with zipfile.ZipFile(FEED) as archive:
        for member in archive.namelist():
            if member.endswith("weekend-feed.json"):
                for race in json.loads(archive.read(member))["weekend_race"]:
                    rows += [(member, car["driver_fullname"]) for car in race["results"]]
    return pl.concat([*frames, pl.DataFrame(rows, schema=["race", "name"], orient="row")]).drop_nulls()


@pytest.mark.real
@pytest.mark.skipif(not REAL_DATA.exists(), reason=f"real results are not at {REAL_DATA}")
def test_real_drivers_of_a_race_keep_apart_and_their_spellings_merge() -> None:
    """43,432 names of 1,147 races, 628 different ones, are 617 drivers.

    No two names of one race share a key. Beyond case, marks and initials, exactly four drivers are merged,
    each of whom the sources spell in two ways.
    """
    names = real_names()
    assert (names.height, names["race"].n_unique(), names["name"].n_unique()) == (43_432, 1_147, 628)
    keyed = names.with_columns(
        key=driver_keys(names["name"], names["race"]),
        own=pl.col("name").replace_strict({name: driver_key(name) for name in names["name"].unique()}),
        full=pl.col("name").replace_strict({name: full_key(name) for name in names["name"].unique()}),
    )
    assert keyed["key"].n_unique() == 617
    assert keyed["key"].equals(keyed["own"])
    of_race = keyed.unique(["race", "name"])
    assert not of_race.select(pl.struct("race", "key").is_duplicated()).to_series().any()
    merged = keyed.group_by("own").agg(pl.col("full").unique().sort()).filter(pl.col("full").list.len() > 1)
    assert dict(merged.iter_rows()) == {
        "john-hunter-nemechek": ["john-h-nemechek", "john-hunter-nemechek"],
        "leland-honeyman": ["leland-honeyman", "leland-honeyman-jr"],
        "michel-disdier": ["michael-disdier", "michel-disdier"],
        "nicholas-sanchez": ["nicholas-sanchez", "nick-sanchez"],
    }
