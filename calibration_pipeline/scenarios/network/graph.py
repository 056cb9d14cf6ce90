"""Mermaid diagram of the causal graph, from the network's `RELATIONS`."""

from calibration_pipeline.scenarios.network.model import RELATIONS


def draw_graph() -> str:
    r"""Return the causal graph in Mermaid's language: boxes are nodes of the model, ovals are known inputs.

    Returns
    -------
    str
        Without the fence of a Markdown block.

    References
    ----------
    https://mermaid.js.org/syntax/flowchart.html

    Examples
    --------
    >>> print("\n".join(draw_graph().splitlines()[:2]))
    flowchart TD
        archetype([archetype])
    """
    parents = dict.fromkeys(parent for node in RELATIONS.values() for parent in node)
    known = [name for name in parents if name not in RELATIONS]
    lines = [f"{name}([{name}])" for name in known]
    lines += [f"{name}[{name}]" for name in RELATIONS]
    lines += [f"{parent} --> {name}" for name, node in RELATIONS.items() for parent in node]
    return "\n    ".join(["flowchart TD", *lines])
