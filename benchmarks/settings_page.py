"""The page of settings in the documentation, from the typed object: python -m benchmarks.settings_page."""

from assets.definitions import build_defs
from assets.settings import ENV_PREFIX, Settings, project_folder
from assets.storage.provenance import DEPENDS_ON

PAGE = "docs/settings.md"
HEAD = """\
# Settings

<!-- Written by `python -m benchmarks.settings_page`; a test holds it against the code. -->

Every setting can be given as an option of a command (`--seasons 2020-2023`), in the environment
(`CALIBRATION_SEASONS=2020-2023`) or in a file `.env` in the project's folder; the first of these that names
it wins. `calibration-pipeline settings` shows what is in force and where it came from. The UI, its daemon
and `dg` read the environment and `.env`. A value that is not allowed is refused, with its name and origin.

| option | environment | default | what it is |
|---|---|---|---|
"""
STALE = """
## What a change makes stale

After a run, a change of one of these settings makes exactly the assets stale that depend on it;
`run --update` materializes them, and then whatever reads a value that has changed. Simulated results
depend on the seed; other sources depend on their addresses instead.

| setting | assets |
|---|---|
"""
TAIL = """
`DAGSTER_HOME` is where Dagster keeps its own records: `.dagster_home/` in the project's folder by default.
What JAX has compiled is kept there too, in `compiled/`; `JAX_COMPILATION_CACHE_DIR` names another folder.
"""


def settings_page() -> str:
    """Return the page, as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{str(field.default).lower()}`"
        about = (field.description or "").replace("|", "\\|")
        option = name.replace("_", "-")
        rows.append(f"| `--{option}` | `{ENV_PREFIX}{name.upper()}` | {default} | {about} |")
    stale = [
        f"| `--{name.replace('_', '-')}` | {', '.join(assets)} |" for name, assets in dependents().items()
    ]
    return HEAD + "\n".join(rows) + "\n" + STALE + "\n".join(stale) + "\n" + TAIL


def dependents() -> dict[str, list[str]]:
    """Return setting → the assets that declare that they depend on it, with simulated seasons."""
    graph = build_defs(Settings()).resolve_asset_graph()
    declared = {
        key.path[-1]: graph.get(key).metadata.get(DEPENDS_ON, ()) for key in graph.toposorted_asset_keys
    }
    stands_for = {"seed": {"seed", "source"}}
    return {
        name: [asset for asset, names in declared.items() if stands_for.get(name, {name}) & set(names)]
        for name in ("seed", "scenarios", "network", "fold_races", "events", "ensembles", "seasons")
    }


if __name__ == "__main__":
    (project_folder() / PAGE).write_text(settings_page(), encoding="utf-8")
