"""What the reward functions of TRL, open-r1 and open-rs are called here, with their parameters."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from open_rs.config.keys.file import File, Meaning, RefusedError


def rewards(file: File) -> Meaning:
    """Terms with weights and parameters."""
    names = file.get("reward_funcs", ["accuracy", "format", "tag_count"] if file.family != "TRL" else None)
    if names is None:
        return {}  # a script gave them in Python
    names = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    weights = file.get("reward_weights", [1.0] * len(names))
    if len(weights) != len(names):
        raise RefusedError(
            f"`reward_funcs` has {len(names)} entries and `reward_weights` {len(weights)}; give each its weight"
        )
    terms = []
    for name, weight in zip(names, weights, strict=True):
        term = _term_name(name)
        parameters = PARAMETERS[term](file) if term in PARAMETERS and file.family != "TRL" else {}
        terms.append({"name": term, "weight": float(weight)} | ({"params": parameters} if parameters else {}))
    return {"reward.terms": terms}


def _term_name(name: str) -> str:
    if name in CODE_REWARDS:
        raise RefusedError(
            f"`reward_funcs`: `{name}` runs what the model wrote, which needs a sandbox, and there is none here"
        )
    if name in REWARD_NAMES:
        return REWARD_NAMES[name]
    if ":" in name:
        return name
    module, dot, function = name.rpartition(".")
    if dot:
        return f"{module}:{function}"
    near = get_close_matches(name, REWARD_NAMES, n=1)
    hint = f"the nearest is `{near[0]}`" if near else f"known: {', '.join(sorted(set(REWARD_NAMES)))}"
    raise RefusedError(
        f"`reward_funcs`: `{name}` is no reward here, {hint}; a function of your own is `module:function`"
    )


def _cosine(file: File) -> dict[str, Any]:
    return {
        "max_length": file.get("cosine_max_len", 1000),
        "length_unit": "characters",
        "clamp": False,
        "min_value_correct": file.get("cosine_min_value_correct", 0.5),
        "max_value_correct": file.get("cosine_max_value_correct", 1.0),
        "min_value_wrong": file.get("cosine_min_value_wrong", 0.0),
        "max_value_wrong": file.get("cosine_max_value_wrong", -0.5),
    }


def _repetition(file: File) -> dict[str, Any]:
    return {"ngram_size": file.get("repetition_n_grams", 3), "max_penalty": file.get("repetition_max_penalty", -1.0)}


def _overlong(file: File) -> dict[str, Any]:
    return {"max_length": file.get("max_completion_len", 16384), "buffer": file.get("soft_punish_cache", 4096)}


REWARD_NAMES = {
    **{name: name for name in ("accuracy", "format", "cosine", "tag_count", "reasoning_steps", "repetition_penalty")},
    **{name: name for name in ("length", "soft_overlong", "language")},
    "soft_overlong_punishment": "soft_overlong",
    "accuracy_reward": "accuracy",
    "reasoning_accuracy_reward": "accuracy",
    "think_format_reward": "format",
    "get_soft_overlong_punishment": "soft_overlong",
}
CODE_REWARDS = ("code", "binary_code", "ioi_code", "cf_code", "code_format")
PARAMETERS = {"cosine": _cosine, "repetition_penalty": _repetition, "soft_overlong": _overlong}
