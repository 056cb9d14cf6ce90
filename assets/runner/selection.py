"""Selection of assets by names and expressions, as the command takes them."""

import re

import dagster as dg


class SelectionError(ValueError):
    """A selection that fits no asset; the message lists the assets."""


def select_assets(defs: dg.Definitions, selection: str | None) -> list[str]:
    """Return the assets of a selection such as 'race_results,lap_telemetry' or '+causal_network', in order.

    A plus before a name adds everything upstream, one after it everything downstream. Results bring
    the quarantine with them, the table of their defects.

    Parameters
    ----------
    defs : dagster.Definitions
    selection : str or None
        Names or expressions of Dagster, separated by commas; None for all assets.

    Raises
    ------
    SelectionError
        If a name or expression fits no asset.
    """
    graph = defs.resolve_asset_graph()
    known = {key.path[-1]: key for key in graph.toposorted_asset_keys}
    if not selection:
        return list(known)
    chosen: set[str] = set()
    for text in filter(None, map(str.strip, selection.split(","))):
        if name := re.fullmatch(r"(\+?)(\w+)(\+?)", text):
            if name[2] not in known:
                raise SelectionError(
                    f"No asset is called {name[2]!r}; there are: {', '.join(sorted(known))}."
                )
            text = f'{name[1]}key:"{known[name[2]].to_user_string()}"{name[3]}'
        try:
            found = dg.AssetSelection.from_string(text).resolve(graph)
        except dg.DagsterError as error:
            raise SelectionError(f"{text!r} is no selection of assets: {error}") from error
        if not found:
            raise SelectionError(f"No asset fits the selection {text!r}.")
        chosen |= {key.path[-1] for key in found}
    chosen |= {"quarantine"} if "race_results" in chosen else set()
    return [name for name in known if name in chosen]
