"""Hubverse tables: the long form `model_id`, `output_type`, `output_type_id`, `value`, of one or more models.

A model's rows become a plain table of scenarios (`sample`), of position probabilities (`pmf`, `cdf`), or of
event probabilities (`pmf` whose ids are markets). See https://docs.hubverse.io.
"""

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.event_probabilities import market_named
from calibration_pipeline.forecasters.tables import HIGHER_IS_BETTER, KEYS, ForecastTable

COLUMNS = {"output_type": (), "output_type_id": (), "value": ()}
MODEL_COLUMN = {"model_id": ("model",)}
SAMPLE, PMF, CDF = "sample", "pmf", "cdf"
OUTPUT_TYPES = (SAMPLE, PMF, CDF)
"""Output types that are read, the one with most information first."""


def is_hubverse(table: ForecastTable) -> bool:
    """Return whether a table has the hubverse columns."""
    return len(table.find(COLUMNS)) == len(COLUMNS)


def list_models(table: ForecastTable) -> list[str]:
    """Return the models of a hubverse table, sorted; empty if it does not name them."""
    column = table.find(MODEL_COLUMN).get("model_id")
    if column is None:
        return []
    return table.collect(table.text(column).unique().alias("model"))["model"].drop_nulls().sort().to_list()


def select_model(table: ForecastTable, model: str | None) -> ForecastTable:
    """Return the rows of a model as a plain table, of one form of forecast.

    Parameters
    ----------
    table : ForecastTable
        A table for which `is_hubverse` holds.
    model : str or None
        None for a table of one model.

    Returns
    -------
    ForecastTable
        With scenario and value; or position and probability or cumulative_probability; or market and
        probability. Of several output types, the first of `OUTPUT_TYPES` is read.

    Raises
    ------
    ForecasterError
        If `model` is None and the table has several models, or no output type is one of `OUTPUT_TYPES`.
    """
    names = table.find(COLUMNS)
    models = list_models(table)
    if model is None and len(models) > 1:
        named = ", ".join(models[:5])
        raise ForecasterError(f"{table.path} holds the forecasts of {len(models)} models: {named}.")
    rows = table.rows
    if model is not None:
        rows = rows.filter(table.text(table.find(MODEL_COLUMN)["model_id"]) == model)
    kind = table.text(names["output_type"]).str.to_lowercase()
    own = ForecastTable(table.path, rows, table.decimal_comma, table.attributes)
    kinds = own.collect(kind.unique().alias("kind"))["kind"].drop_nulls().to_list()
    chosen = next((name for name in OUTPUT_TYPES if name in kinds), None)
    if chosen is None:
        held = ", ".join(sorted(kinds)) or "none"
        raise ForecasterError(f"{table.path}: output_type must be {', '.join(OUTPUT_TYPES)}; got {held}.")
    rows = rows.filter(kind == chosen)
    renamed = {names["output_type_id"]: "scenario"}
    if chosen != SAMPLE:
        ids = ForecastTable(table.path, rows, table.decimal_comma).collect(
            table.text(names["output_type_id"]).unique().alias("id")
        )
        are_markets = chosen == PMF and all(market_named(name)[0] for name in ids["id"].drop_nulls())
        renamed = {
            names["output_type_id"]: "market" if are_markets else "position",
            names["value"]: "cumulative_probability" if chosen == CDF else "probability",
        }
    beside = table.find({**KEYS, "race": (), HIGHER_IS_BETTER: ()}) | table.labels
    kept = {*beside.values(), names["value"], *renamed}
    rows = rows.select(name for name in table.schema if name in kept)
    return ForecastTable(table.path, rows.rename(renamed), table.decimal_comma, table.attributes)
