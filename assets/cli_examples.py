"""What the commands' `--help` says beyond their options."""

RUN_EXAMPLES = """\
examples:
  calibration-pipeline run                                            simulated seasons, everything
  calibration-pipeline run --source tables --results cup.parquet      your own results, all seasons in them
  calibration-pipeline run --source tables --results cup.csv --laps laps.parquet --seasons 2020-2023
  calibration-pipeline run --source nascar_feed --feed-url feed.zip   the timing feed's files
  calibration-pipeline run --select +scenario_ensemble                up to the scenarios
  calibration-pipeline run --update                                   new races, and what is out of date
"""
EVENT_EXAMPLES = """\
examples:
  calibration-pipeline events                                what events are made of, and which are judged
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
Hold every stored file against the SHA-256 that the run recorded which wrote it, and name what differs: files
that are changed, missing, damaged or of another schema version, that no run recorded, or that are left over.
It reads and changes nothing. Exit code 0 where all is as recorded, else 1.
"""
VERIFY_EXAMPLES = """\
examples:
  calibration-pipeline verify                                the store of the settings in force
  calibration-pipeline verify --source tables --results cup.parquet
  calibration-pipeline verify --store s3://bucket/prefix && echo sound
  calibration-pipeline run --update                          make what differs again
"""
