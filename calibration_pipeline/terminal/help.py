"""Texts and examples of the commands' `--help`."""

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
