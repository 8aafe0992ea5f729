"""Checkpoints that are whole or absent: written beside their place, then renamed into it.

A checkpoint holds what the next step needs and nothing that can be computed again: weights and optimiser of the policy,
and one `state.json`. Prompt choice and sampling noise are functions of the step, so no generator's state is stored.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_rs.run_dir import RunDir, disk_errors
from open_rs.train.policy import Policy

_NAME = re.compile(r"step-(\d{6})")


def save(run: RunDir, policy: Policy, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Save the state before step `step`, then delete all but the newest `keep`. Every process must call it.

    Raises UserError when the disk is full; the checkpoints that were there stay.
    """
    place = run.path / "checkpoints" / f"step-{step:06d}"
    draft = place.with_name(f".{place.name}.draft")
    with disk_errors(place):
        if policy.accelerator.is_main_process:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        policy.accelerator.wait_for_everyone()
        policy.save_state(draft)
        if policy.accelerator.is_main_process:
            (draft / "state.json").write_text(json.dumps({"step": step, **state}))
            _flush(draft)
            shutil.rmtree(place, ignore_errors=True)
            draft.rename(place)
            _flush(place.parent)
            for old in every(run)[:-keep]:
                shutil.rmtree(old)
        policy.accelerator.wait_for_everyone()
    return place


def every(run: RunDir) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path for path in (run.path / "checkpoints").iterdir() if _NAME.fullmatch(path.name))


def restore(place: Path, policy: Policy) -> dict[str, Any]:
    """Load weights and optimiser into the policy; returns the stored state, of which `step` is the next step to run."""
    policy.load_state(place)
    return json.loads((place / "state.json").read_text())


def _flush(directory: Path) -> None:
    """Push a directory's files and names to the disk, so that a power cut after the rename leaves it whole."""
    for path in [*directory.iterdir(), directory] if directory.is_dir() else []:
        if path.is_dir() and path != directory:
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
