"""What a curation leaves behind: Parquet and JSON lines, a data card, a manifest, the funnel, and every dropped row."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from open_rs.config.curation import CurationRecipe
from open_rs.data.card import funnel_drawing, write_card
from open_rs.data.curate import Curated, Step, as_rows
from open_rs.data.inspect import check_overlap
from open_rs.data.overlap import Overlap
from open_rs.data.stages import Rows, draw, evidence_of
from open_rs.run_dir import RunDir, disk_errors
from open_rs.types import Problem, UserError

COLUMNS = {
    "id": str, "problem": str, "solution": str, "answer": str, "level": str, "source": str, "domain": str,
    "pass_rate": float, "pass_rate_lower": float, "pass_rate_upper": float, "num_samples": int,
}  # fmt: skip
ROWS_PER_GROUP = 5_000
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Written:
    """Where a set was written, how many rows it has, and how many of them repeat a benchmark."""

    directory: Path
    rows: int
    held_out_rows: int
    overlaps: int


def write_set(curated: Curated, directory: Path) -> Written:
    """Check the rows against the benchmarks, and write the set. An older set in `directory` is replaced.

    Raises UserError where rows repeat a benchmark and the recipe does not say `allow_contaminated`, where `directory`
    holds something else, and for a full disk.
    """
    _refuse_foreign(directory)
    held_out = _held_out(curated.recipe, curated.rows)
    overlaps = check_overlap(list(curated.rows), curated.benchmark_items)
    if overlaps and not curated.recipe.allow_contaminated:
        raise UserError(_contaminated(overlaps))
    with disk_errors(directory):
        _write_data(curated.rows, held_out, directory)
        _write_dropped(curated.steps, directory)
        _write_overlaps(overlaps, directory)
        manifest = _manifest(curated, held_out, overlaps, directory)
        files = RunDir(directory)
        files.write_json(MANIFEST, manifest)
        files.write_json("funnel.json", as_rows(curated.steps))
        files.write_text("curation.yaml", _yaml(curated.recipe))
        files.write_text("funnel.svg", funnel_drawing(curated.steps))
        files.write_text("README.md", write_card(manifest, curated.steps, rejects(curated.steps)))
    return Written(directory, manifest["rows"], manifest["held_out_rows"], len(overlaps))


def rejects(steps: Sequence[Step], per_reason: int = 2) -> list[dict[str, Any]]:
    """A few dropped rows for every reason, the first ones of each stage: what a reader of the card can judge."""
    found: list[dict[str, Any]] = []
    for step in steps:
        seen: Counter[str] = Counter()
        for row in _dropped_rows(step):
            seen[row["reason"]] += 1
            if seen[row["reason"]] <= per_reason:
                found.append({"step": step.name, **row})
    return found


def as_row(problem: Problem) -> dict[str, Any]:
    """The columns of the written set: those of the paper's, and what we know besides."""
    known = {**problem.meta, "id": problem.id, "problem": problem.question, "answer": problem.answer}
    known["source"] = problem.source
    known.setdefault("domain", known.get("type") or known.get("subject"))
    return {name: _cell(known.get(name), kind) for name, kind in COLUMNS.items()}


def _cell(value: Any, kind: type) -> Any:
    if value is None or value == "":
        return "" if kind is str and value == "" else None
    try:
        return kind(value)
    except (TypeError, ValueError):
        return None


def _held_out(recipe: CurationRecipe, rows: Rows) -> set[int]:
    if recipe.held_out.rows >= len(rows) > 0:
        raise UserError(
            f"held_out.rows: {recipe.held_out.rows} rows can't be set aside of {len(rows)}; lower it, or keep more rows"
        )
    return draw(range(len(rows)), recipe.held_out.rows, f"held out\0{recipe.held_out.seed}")


def _refuse_foreign(directory: Path) -> None:
    if (
        directory.exists()
        and (not directory.is_dir() or any(directory.iterdir()))
        and not (directory / MANIFEST).is_file()
    ):
        raise UserError(f"{directory}: holds files that no curation wrote; choose another directory with --out")


def _contaminated(overlaps: Sequence[Overlap]) -> str:
    counts = Counter(overlap.item.source for overlap in overlaps)
    told = ", ".join(f"{count} of {name}" for name, count in counts.most_common())
    first = overlaps[0]
    return (
        f"{len(overlaps)} rows repeat held-out problems ({told}), for example {first.problem.id} and {first.item.id}; "
        "add `- stage: decontaminate` to the recipe, or set allow_contaminated: true to write them all the same"
    )


def _write_data(rows: Iterable[Problem], held_out: set[int], directory: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    for name in ("train", "validation"):
        (directory / "data" / f"{name}.parquet").unlink(missing_ok=True)
        (directory / f"{name}.jsonl").unlink(missing_ok=True)
    (directory / "data").mkdir(parents=True, exist_ok=True)
    for name, part in (("train", _part(rows, held_out, False)), ("validation", _part(rows, held_out, True))):
        if name == "validation" and not held_out:
            continue
        with (
            pyarrow.parquet.ParquetWriter(directory / "data" / f"{name}.parquet", schema) as table,
            (directory / f"{name}.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as lines,
        ):
            for group in _groups(part, ROWS_PER_GROUP):
                lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in group)
                clean = [{key: _encodable(value) for key, value in row.items()} for row in group]
                table.write_table(pyarrow.Table.from_pylist(clean, schema=schema))


def _encodable(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _part(rows: Iterable[Problem], held_out: set[int], wanted: bool) -> Iterator[dict[str, Any]]:
    return (as_row(problem) for number, problem in enumerate(rows) if (number in held_out) is wanted)


def _groups(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _dropped_rows(step: Step) -> Iterator[dict[str, Any]]:
    with (Path(step.directory) / "dropped.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield {name: row[name] for name in ("id", "source", "reason", "evidence", "question", "answer")}


def _write_dropped(steps: Sequence[Step], directory: Path) -> None:
    """Every dropped row with its reason; the stamp in the compressed file is fixed, so equal sets are equal files."""
    with gzip.GzipFile(directory / "dropped.jsonl.gz", "wb", mtime=0) as file:
        for step in steps:
            for row in _dropped_rows(step):
                file.write(json.dumps({"step": step.name, **row}).encode() + b"\n")


def _write_overlaps(overlaps: Sequence[Overlap], directory: Path) -> None:
    files = RunDir(directory)
    files.write_rows("overlap.jsonl", ({"id": overlap.problem.id, **evidence_of(overlap)} for overlap in overlaps))


def _manifest(curated: Curated, held_out: set[int], overlaps: Sequence[Overlap], directory: Path) -> dict[str, Any]:
    rows = [as_row(problem) for problem in curated.rows]
    names = ["train.jsonl", "data/train.parquet", "dropped.jsonl.gz", "overlap.jsonl"]
    names += ["validation.jsonl", "data/validation.parquet"] if held_out else []
    return {
        "name": curated.recipe.name,
        "about": curated.recipe.about,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": len(rows) - len(held_out),
        "held_out_rows": len(held_out),
        "by_source": dict(Counter(row["source"] for row in rows).most_common()),
        "by_level": dict(Counter(row["level"] or "not stated" for row in rows).most_common()),
        "origins": [
            {"name": o.name, "place": _public(o.place), "sha256": o.digest, "licence": o.licence, "rows": o.rows}
            for o in curated.origins
        ],
        "overlap": {
            "rows": len(overlaps),
            "checked_against": dict(Counter(item.source for item in curated.benchmark_items)),
            "found": dict(Counter(overlap.item.source for overlap in overlaps)),
        },
        "recipe_key": curated.key,
        "files": {
            name: {"sha256": _sha256(directory / name), "bytes": (directory / name).stat().st_size} for name in names
        },
    }


def _public(place: str) -> str:
    """A Hub id as it is, a local file by its name alone: a card goes to the public and names no person's folders."""
    return Path(place).name if Path(place).exists() else place


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _yaml(recipe: CurationRecipe) -> str:
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
