"""The model card: what a model is, says and holds, in Markdown with the YAML head that model hubs read."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["model_card"]

_OPEN = "Not stated."


def model_card(manifest: Mapping[str, Any]) -> str:
    """A card of what a manifest says.

    Parameters
    ----------
    manifest : mapping
        As :func:`mmdls.persistence._manifest.make_manifest` makes it.

    Returns
    -------
    str
        Markdown. Every value of the head is JSON, which is YAML too.
    """
    return "\n".join([*_head(manifest), *_body(manifest), ""])


def _head(manifest: Mapping[str, Any]) -> list[str]:
    tags = ["mmdls", "medical", "survival-analysis", *sorted({task["kind"] for task in manifest["tasks"]})]
    lines = ["---", 'library_name: "mmdls"', "tags:", *(f"- {json.dumps(tag)}" for tag in dict.fromkeys(tags))]
    results = [row for row in manifest["metrics"] if isinstance(row.get("value"), int | float)]
    if results:
        lines += ["model-index:", f"- name: {json.dumps(manifest['model'])}", "  results:"]
        by_task: dict[str, list[Mapping[str, Any]]] = {}
        for row in results:
            by_task.setdefault(str(row.get("task", "all")), []).append(row)
        for task, rows in by_task.items():
            lines += [
                f"  - task: {{type: {json.dumps('tabular-classification')}, name: {json.dumps(task)}}}",
                f"    dataset: {{type: {json.dumps('cohort')}, name: {json.dumps('cohort of the authors')}}}",
                "    metrics:",
            ]
            lines += [
                f"    - {{type: {json.dumps(str(row.get('metric')))}, name: {json.dumps(_metric(row))}, "
                f"value: {json.dumps(row['value'])}}}"
                for row in rows
            ]
    return [*lines, "---", ""]


def _body(manifest: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    tasks = [
        f"- `{task['name']}` ({task['kind']}{': ' + ', '.join(task['classes']) if task['classes'] else ''})"
        for task in manifest["tasks"]
    ]
    data = manifest["data"]
    lines = [
        f"# {manifest['model']}",
        "",
        "A model of `mmdls`. Research software, not a medical device.",
        "",
        "## Intended use",
        "",
        manifest["intended_use"] or _OPEN,
        "",
        "## What it predicts",
        "",
        *(tasks or [_OPEN]),
        "",
        "## What it reads",
        "",
        ", ".join(f"`{name}`" for name in manifest["inputs"]) or _OPEN,
        "",
        "## Training data",
        "",
        _OPEN
        if data is None
        else f"{data['patients']} patients. SHA-256 of X `{data['X']}`, of y `{data['y']}`, of images "
        f"`{data['images']}`.",
        "",
        "## Performance",
        "",
        *(_table(manifest["metrics"]) or [_OPEN]),
        "",
        "## Data of patients in these files",
        "",
        "No images, no rows of the input tables and no state of the optimiser are in these files, except:"
        if manifest["holds"]
        else "No data of single patients were found in these files.",
        "",
        *(f"- `{place.partition(': ')[0]}`: {place.partition(': ')[2]}" for place in manifest["holds"]),
        "",
        "Weights, averages, scales, categories and baseline hazards were learned from patients; what they tell about "
        "one of them was not measured.",
        "",
        "## Settings",
        "",
        *(f"- `{name}`: `{text}`" for name, text in manifest["settings"].items()),
        *([""] + [f"- not saved: `{text}`" for text in manifest["left_out"]] if manifest["left_out"] else []),
        "",
        "## How to load it",
        "",
        "```python",
        "import mmdls",
        "",
        'model = mmdls.load("path of this folder or file")',
        "```",
        "",
        f"Saved with {versions}. Loading executes nothing from these files.",
    ]
    return [line.replace("\n", " ") if "\n" in line and "`" in line else line for line in lines]


def _metric(row: Mapping[str, Any]) -> str:
    horizon = row.get("horizon")
    return f"{row.get('metric')}" + (f" at {horizon:g} months" if isinstance(horizon, int | float) else "")


def _table(metrics: list[Mapping[str, Any]]) -> list[str]:
    if not metrics:
        return []
    names = list(dict.fromkeys(name for row in metrics for name in row))
    rows = [[_cell(row.get(name)) for name in names] for row in metrics]
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")
