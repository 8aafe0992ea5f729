"""One self-contained HTML file from run directories: the claim first, then its evidence, then what ran."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from open_rs.report import charts
from open_rs.report.card import SETS
from open_rs.report.charts import AFTER, BEFORE, FOURTH, THIRD, Bar, Series
from open_rs.report.live import duration
from open_rs.report.pairing import describe_pairing
from open_rs.run_dir import RunDir

READER_STEPS = 24  # steps whose completions the page carries
READER_ROWS = 8  # completions of each such step
PAIRS = 4
FUNNEL = "funnel.svg"  # as `data.publish` draws it beside a curated set
LONGEST_TEXT = 6_000  # characters of one completion; the whole of it is in the run

MEASURES = {"avg": "sampled", "greedy": "greedy", "pass@8": "at least one of 8 right"}


@dataclass(frozen=True)
class Page:
    """What the template needs; `rollouts_json` is read by the completion reader."""

    title: str
    runs: Sequence[Mapping[str, Any]]
    rollouts_json: Markup


def write_report(directories: Sequence[Path], target: Path) -> Path:
    """Write the report of one or several runs to `target`. Raises UserError where a directory holds no run."""
    runs = [describe_run(RunDir.open(directory)) for directory in directories]
    page = Page(", ".join(run["name"] for run in runs), runs, _embed([run["rollouts"] for run in runs]))
    loader = jinja2.PackageLoader("open_rs.report", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    html = environment.get_template("page.html.j2").render(page=page)
    RunDir(target.parent).write_text(target.name, html)
    return target


def describe_run(run: RunDir) -> dict[str, Any]:
    """Everything the page says of one run, read from its directory."""
    recipe_text = (run.path / "recipe.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(recipe_text)
    summary = run.read_json("summary.json") if (run.path / "summary.json").exists() else {}
    metrics = list(run.read_rows("metrics.jsonl"))
    environment = run.read_json("environment.json") if (run.path / "environment.json").exists() else {}
    return {
        "name": recipe["name"],
        "model": recipe["model"]["name_or_path"],
        "steps": len(metrics),
        "headline": _headline(summary),
        "table": _table(summary),
        "table_caption": "right answers",
        "interval_chart": Markup(_interval_chart(summary)) if "base" in summary else "",
        "reading": _reading(summary),
        "pairing": describe_pairing(run),
        "funnel": _funnel(recipe),
        "charts": [Markup(chart) for chart in _training_charts(metrics, summary)],
        "pairs": _pairs(run),
        "rollouts": _rollouts(run),
        "facts": _facts(summary, environment, metrics),
        "events": [_event(row) for row in run.read_rows("events.jsonl")],
        "reasons": sorted(recipe.get("because", {}).items()),
        "recipe": recipe_text,
        "environment": json.dumps(environment, indent=2),
    }


def _headline(summary: Mapping[str, Any]) -> dict[str, str] | None:
    if "difference" not in summary:
        return None
    base, trained, difference = summary["base"], summary["trained"], summary["difference"]
    low, high = (100 * bound for bound in difference["ci95"])
    verdict = "This is not luck" if low > 0 else "This is a loss" if high < 0 else "This could be luck"
    sentence = (
        f"{verdict}: the paired difference is {100 * difference['value']:+.1f} points, 95 % interval {low:+.1f} to "
        f"{high:+.1f}, p {_p_value(difference['p_value'])}, over {base['num_problems']} held-out problems with "
        f"{base['samples']} samples each."
    )
    return {"before": f"{100 * base['avg']:.0f} %", "after": f"{100 * trained['avg']:.0f} %", "sentence": sentence}


def _p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}"


def _table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for name, sides in summary.get("sets", {}).items():
        for measure, words in MEASURES.items():
            if measure not in sides["base"] or measure not in sides["trained"]:
                continue
            difference = sides["differences"].get(measure)
            rows.append(
                {
                    "label": f"{SETS.get(name, name)}, {words}",
                    "before": f"{100 * sides['base'][measure]:.1f} %",
                    "after": f"{100 * sides['trained'][measure]:.1f} %",
                    "difference": "" if difference is None else f"{100 * difference['value']:+.1f}",
                    "interval": "" if difference is None else "{:+.1f} to {:+.1f}".format(*_points(difference["ci95"])),
                }
            )
    return rows


def _points(bounds: Iterable[float]) -> list[float]:
    return [100 * bound for bound in bounds]


def _interval_chart(summary: Mapping[str, Any]) -> str:
    bars = []
    for name, sides in summary["sets"].items():
        for when, colour in (("base", BEFORE), ("trained", AFTER)):
            label = f"{str(SETS.get(name, name)).split(' than')[0]}, {'before' if when == 'base' else 'after'}"
            bars.append(Bar(label, sides[when]["avg"], *sides[when]["ci95"], colour=colour))
    return charts.intervals("Right answers, sampled, with 95 % intervals over problems", bars)


def _reading(summary: Mapping[str, Any]) -> str:
    if "base" not in summary or "pass@8" not in summary["base"]:
        return ""
    return (
        "How to read it: training that only sharpens what the model could already do lifts the sampled score towards "
        "the old score of at least one of 8 right; a rise of that score too, or on longer problems, is learning. "
        "Longer problems are longer than any of this training; the base model had met a few of that length."
    )


def _funnel(recipe: Mapping[str, Any]) -> Markup:
    """The curation that a run's problems came through, where its set still lies where the recipe says."""
    given = (recipe.get("data") or {}).get("path")
    if given is None:
        return Markup("")
    places = [Path(given), *Path(given).parents][:3]  # the set's directory, or a file in it or in its `data/`
    files = [place / FUNNEL for place in places if (place / FUNNEL).is_file()]
    return Markup(files[0].read_text(encoding="utf-8") if files else "")


def _training_charts(metrics: list[dict[str, Any]], summary: Mapping[str, Any]) -> list[str]:
    drawn = []
    for title, lines, percent in CHARTS:
        series = [one for key, label, colour in lines if (one := _series(metrics, key, label, colour)) is not None]
        if title == "Accuracy":
            series = [*series, *_validation(metrics)]
        if series:
            drawn.append(charts.lines(title, series, percent))
    seconds = {key: value for key, value in summary.get("seconds", {}).items() if key != "total"}
    if seconds:
        drawn.append(charts.shares("Where the time went", list(seconds.items()), "s"))
    return drawn


def _series(metrics: list[dict[str, Any]], key: str, label: str, colour: str) -> Series | None:
    points = [(row["step"], row[key]) for row in metrics if isinstance(row.get(key), int | float)]
    if not points:
        return None
    return Series(label, [x for x, _ in points], [y for _, y in points], colour, noisy=key != "learning_rate")


def _validation(metrics: list[dict[str, Any]]) -> list[Series]:
    rows = [row for row in metrics if "validation_accuracy" in row]
    if not rows:
        return []
    low, high = ([row["validation_ci95"][side] for row in rows] for side in (0, 1))
    steps, accuracy = [row["step"] for row in rows], [row["validation_accuracy"] for row in rows]
    return [Series("held out", steps, accuracy, THIRD, low, high, points=True)]


def _pairs(run: RunDir) -> list[dict[str, Any]]:
    """First samples of held-out problems on both sides: those that went from wrong to right come first."""
    before, after = (_first_samples(run, when) for when in ("base", "trained"))
    shared = [name for name in before if name in after]
    shared.sort(key=lambda name: (before[name]["correct"] is True, after[name]["correct"] is not True))
    return [
        {
            "question": before[name]["question"],
            "gold": before[name]["gold"],
            "sides": [_side("before", before[name]), _side("after", after[name])],
        }
        for name in shared[:PAIRS]
    ]


def _first_samples(run: RunDir, when: str) -> dict[str, dict[str, Any]]:
    rows = run.read_rows(f"results/{when}/completions.jsonl")
    return {row["problem_id"]: row for row in rows if row["sample"] == 0}


def _side(when: str, row: Mapping[str, Any]) -> dict[str, str]:
    return {"when": when, "mark": "right" if row["correct"] else "wrong", "text": _shorten(row["text"])}


def _rollouts(run: RunDir) -> list[dict[str, Any]]:
    files = sorted(path.name for path in (run.path / "rollouts").glob("step-??????.jsonl.gz"))
    stride = max(1, -(-len(files) // READER_STEPS))
    chosen = [*files[::stride], *files[-1:]] if files and files[-1] not in files[::stride] else files[::stride]
    steps = []
    for name in chosen:
        rows = list(run.read_rows(f"rollouts/{name}"))
        picked = rows[:: max(1, len(rows) // READER_ROWS)][:READER_ROWS]
        steps.append({"step": int(name[5:11]), "rows": [row | {"text": _shorten(row["text"])} for row in picked]})
    return steps


def _shorten(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


def _embed(value: Any) -> Markup:
    """JSON that can't end the script element that holds it."""
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))


def _facts(summary: Mapping[str, Any], environment: Mapping[str, Any], metrics: list[Any]) -> list[tuple[str, str]]:
    facts = [("started", environment.get("started", "")), ("steps", str(len(metrics)))]
    if "seconds" in summary:
        facts.append(("time", duration(summary["seconds"]["total"])))
    facts += [(f"tokens {name}", f"{count:,}") for name, count in summary.get("tokens", {}).items()]
    if summary.get("usd") is not None:
        facts.append(("cost", f"${summary['usd']:.2f}"))
    packages = environment.get("packages", {})
    facts.append(
        (
            "packages",
            ", ".join(f"{name} {packages[name]}" for name in ("open-rs", "torch", "transformers") if name in packages),
        )
    )
    git = environment.get("git")
    if git:
        facts.append(("commit", git["commit"] + (" with uncommitted changes" if git["uncommitted_changes"] else "")))
    return [(key, value) for key, value in facts if value]


def _event(row: Mapping[str, Any]) -> dict[str, str]:
    details = {key: value for key, value in row.items() if key not in ("time", "kind")}
    return {"kind": row["kind"], "text": ", ".join(f"{key}: {value}" for key, value in details.items())}


CHARTS = (  # title, ((metric, label, colour), ...), whether it is a share
    ("Reward", (("reward", "reward", AFTER),), False),
    ("Accuracy", (("accuracy", "training", AFTER),), True),
    (
        "Completion length, tokens",
        (("completion_tokens", "all", BEFORE), ("right_tokens", "right", AFTER), ("wrong_tokens", "wrong", THIRD)),
        False,
    ),
    ("Truncated and without an answer", (("truncated", "truncated", THIRD), ("no_answer", "no answer", BEFORE)), True),
    (
        "Groups without signal",
        (("groups_all_right", "all right", AFTER), ("groups_all_wrong", "all wrong", THIRD)),
        True,
    ),
    ("Entropy, nats a token", (("entropy", "entropy", FOURTH),), False),
    ("Gradient norm before clipping", (("grad_norm", "gradient norm", FOURTH),), False),
    ("Learning rate", (("learning_rate", "learning rate", BEFORE),), False),
)
