"""Reads the names, versions and defaults of recipe keys out of the published wheels of TRL and transformers.

`python -m open_rs.config.keys.harvest` downloads the wheels with pip and rewrites `trl.yaml` beside this file. Only
field names and default values are read, with `ast`; nothing of the packages is imported or kept.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

TRL = [f"0.{minor}.0" for minor in range(14, 30)] + [f"1.{minor}.0" for minor in range(17)]
TRANSFORMERS = ["4.46.3", "4.48.3", "4.50.3", "4.53.3", "4.57.3"] + [f"5.{minor}.0" for minor in (0, 5, 12, 17, 20, 23)]
FILES = {
    "trl": (
        "trl/trainer/base_config.py",
        "trl/trainer/grpo_config.py",
        "trl/trainer/model_config.py",
        "trl/trainer/utils.py",
        "trl/scripts/utils.py",
        "trl/scripts/grpo.py",
    ),
    "transformers": ("transformers/training_args.py",),
}
HOMES = {  # class: the word for it in the table
    "GRPOConfig": "GRPOConfig",
    "ModelConfig": "ModelConfig",
    "ScriptArguments": "ScriptArguments",
    "GRPOScriptArguments": "ScriptArguments",
    "DatasetMixtureConfig": "DatasetMixtureConfig",
    "TrainingArguments": "TrainingArguments",
}

Fields = dict[str, Any]
Classes = dict[str, tuple[list[str], Fields]]  # name: (bases, fields with their defaults)


def main() -> None:
    """Download, read, write."""
    with tempfile.TemporaryDirectory() as scratch:
        trl = {version: _read(_download("trl", version, scratch), "trl") for version in TRL}
        transformers = {
            version: _read(_download("transformers", version, scratch), "transformers") for version in TRANSFORMERS
        }
    inherited = history(transformers, ["TrainingArguments"])
    keys = inherited | history(trl, [name for name in HOMES if name != "TrainingArguments"], inherited)
    text = yaml.safe_dump(dict(sorted(keys.items())), sort_keys=False, default_flow_style=None, width=120)
    header = (
        "# Written by `python -m open_rs.config.keys.harvest`; versions are TRL's, or transformers' where it says so.\n"
    )
    Path(__file__).with_name("trl.yaml").write_text(header + text, encoding="utf-8")


def history(
    releases: Mapping[str, Classes], class_names: Sequence[str], inherited: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """For every field: its home, the releases that have it, and the default from each release on where it changed.

    A release that does not override an inherited field has the inherited default.
    """
    keys: dict[str, dict[str, Any]] = {}
    own = {name for classes in releases.values() for class_name in class_names for name in _fields(classes, class_name)}
    shared = {name: next(iter(key["defaults"].values())) for name, key in (inherited or {}).items() if name in own}
    for version, classes in releases.items():
        for class_name in class_names:
            fields = _fields(classes, class_name)
            for name, default in ((shared | fields) if class_name == "GRPOConfig" else fields).items():
                key = keys.setdefault(
                    name, {"home": HOMES[class_name], "since": version, "until": version, "defaults": {}}
                )
                key["until"] = version
                if not key["defaults"] or list(key["defaults"].values())[-1] != default:
                    key["defaults"][version] = default
    newest = list(releases)[-1]
    for key in keys.values():
        if key["until"] == newest:
            del key["until"]
    return keys


def _download(package: str, version: str, scratch: str) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        scratch,
        f"{package}=={version}",
    ]
    subprocess.run(command, check=True)
    return next(Path(scratch).glob(f"{package}-{version}-*.whl"))


def _read(wheel: Path, package: str) -> Classes:
    classes: Classes = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(set(archive.namelist()) & set(FILES[package])):
            for node in ast.parse(archive.read(name)).body:
                if isinstance(node, ast.ClassDef):
                    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                    classes[node.name] = (bases, _own_fields(node))
    return classes


def _own_fields(node: ast.ClassDef) -> Fields:
    fields: Fields = {}
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not part.target.id.startswith("_"):
            fields[part.target.id] = _default(part.value)
    return fields


def _default(value: ast.expr | None) -> Any:
    """The literal default; None for a required field or one that is computed."""
    if isinstance(value, ast.Call):
        given = [keyword.value for keyword in value.keywords if keyword.arg == "default"]
        value = given[0] if given else None
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return None


def _fields(classes: Classes, class_name: str) -> Fields:
    if class_name not in classes:
        return {}
    bases, own = classes[class_name]
    inherited = [_fields(classes, base) for base in bases]
    return {name: default for fields in [*inherited, own] for name, default in fields.items()}


if __name__ == "__main__":
    main()
