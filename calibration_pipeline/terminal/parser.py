"""Parser of the command line: commands, options, help texts and examples."""

import argparse
from collections.abc import Mapping

RUN_EXAMPLES = """\
examples:
  calibration-pipeline run                                            simulated seasons, everything
  calibration-pipeline run --source tables --results cup.parquet      your own results, all seasons in them
  calibration-pipeline run --source tables --results cup.csv --laps laps.parquet --seasons 2020-2023
  calibration-pipeline run --source nascar_feed --feed-url feed.zip   the timing feed's files
  calibration-pipeline run --select +scenario_ensemble                up to the scenarios
  calibration-pipeline run --update                                   new races, and stale partitions
"""
EVENT_EXAMPLES = """\
examples:
  calibration-pipeline events                                the language of events, and the judged events
  calibration-pipeline events "top(5) & running"             how often: predicted and observed
  calibration-pipeline events "count(dnf) >= 12" --source nascar_feed
"""
SQL_EXAMPLES = """\
examples:
  calibration-pipeline sql                                   the tables and their columns
  calibration-pipeline sql "FROM verdict WHERE line = 1"
  calibration-pipeline sql "SELECT track_id, avg(n_cautions) FROM race_results GROUP BY ALL ORDER BY 2 DESC"
"""
VERIFY_TEXT = """\
Compare every stored file with the SHA-256 that its run recorded, and name each difference: files that are
changed, missing, damaged, left over, of another schema version or recorded by no run; and partitions that are
stale, for their code, settings or inputs have changed. It reads and changes nothing. Exit code 0 where all is
as recorded, else 1.
"""
VERIFY_EXAMPLES = """\
examples:
  calibration-pipeline verify                                the store of the settings in force
  calibration-pipeline verify --source tables --results cup.parquet
  calibration-pipeline verify --store s3://bucket/prefix && echo sound
  calibration-pipeline run --update                          materialize what differs
"""


def build_parser(settings: Mapping[str, str | None]) -> argparse.ArgumentParser:
    """Return the parser; its result has the name of the command as `command`.

    Parameters
    ----------
    settings : mapping
        Setting → what it must be. Each command takes every setting as an option.
    """
    parser = argparse.ArgumentParser(
        prog="calibration-pipeline",
        description="Are simulated NASCAR races to be trusted? Calibration by track archetype.",
    )
    commands = parser.add_subparsers(title="commands", required=True, dest="command", metavar="COMMAND")

    def add(name: str, summary: str, epilog: str = "", text: str | None = None) -> None:
        parsers[name] = commands.add_parser(
            name,
            help=summary,
            description=text,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    parsers: dict[str, argparse.ArgumentParser] = {}
    add("run", "materialize everything, or a selection", RUN_EXAMPLES)
    add("ui", "open the Dagster UI on the same instance, on loopback")
    add("report", "print or open the newest report")
    add("events", "list the language of joint events, or judge one", EVENT_EXAMPLES)
    add("forecast", "print the forecast of the next race, by every forecaster")
    add("leaderboard", "compare the forecasters by market and archetype")
    add("sql", "ask the stored tables in SQL, or list them with their columns", SQL_EXAMPLES)
    add("verify", "compare what is stored with what the runs recorded", VERIFY_EXAMPLES, VERIFY_TEXT)
    add("settings", "show what is in force and where it came from")

    run = parsers["run"].add_argument
    select = "assets by name or expression, e.g. +causal_network, with the inputs that they lack"
    run("--select", metavar="A,B", help=select)
    run("--archetypes", metavar="A,B", help="archetypes to score; all by default")
    stale = "only stale partitions: new races, changed settings, missing or damaged files, changed inputs"
    run("--update", action="store_true", help=stale)
    again = "read a race of the feed again, e.g. 2025-5 for round 5 of 2025, and update"
    run("--refresh", metavar="SEASON-ROUND", help=again)
    run("--verbose", action="store_true", help="show log lines on the terminal as well")
    parsers["ui"].add_argument("--port", type=int, default=3000, help="port, 3000 by default")
    parsers["report"].add_argument("--open", action="store_true", help="open the page in a browser")
    event = "an event in quotes; see examples"
    parsers["events"].add_argument("expression", nargs="?", metavar="EVENT", help=event)
    board = "archetype; all together by default"
    parsers["leaderboard"].add_argument("archetype", nargs="?", metavar="ARCHETYPE", help=board)
    query = "one query in quotes; see examples"
    parsers["sql"].add_argument("question", nargs="?", metavar="QUERY", help=query)

    for command in parsers.values():
        group = command.add_argument_group("settings", "override environment and .env")
        for name, description in settings.items():
            group.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=description)
    return parser
