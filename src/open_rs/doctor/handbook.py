"""`docs/recipes.md`, written from the tables that the code uses: `open-rs recipes --markdown > docs/recipes.md`."""

from __future__ import annotations

from collections.abc import Iterator

from open_rs.config.keys.table import INHERITED, Key, known_keys, show_version
from open_rs.config.load import load_recipe, shipped_names
from open_rs.config.schema import BudgetConfig, Recipe
from open_rs.doctor.cost import PAPER_TOKENS, PAPER_USD, listing
from open_rs.train.memory import (
    MOMENT_BYTES,
    R1_DISTILL_QWEN_1_5B,
    MemoryPlan,
    Shape,
    micro_batch_tokens,
    plan_memory,
    show_bytes,
)

PLANS = (  # (card, its bytes, recipe, overrides)
    ("24 GB", 24 * 10**9, "open-rs-10usd", ()),
    ("24 GB", 24 * 10**9, "tina-lora", ()),
    ("48 GB", 48 * 10**9, "open-rs3", ("rollout.max_concurrent=72",)),
    ("80 GB", 80 * 10**9, "open-rs3", ("rollout.max_concurrent=72", "train.tokens_per_micro_batch=65536")),
)
HEADER = """\
# Recipes

Written by `open-rs recipes --markdown`; a test holds this page equal to the tables in the code.

A recipe is YAML in sections (`model, data, prompt, rollout, reward, algorithm, optimizer, train, validation, guard,
budget`). It names at most one other in `extends`, states what differs, and gives the reason of each difference under
`because`. `open-rs recipes NAME` shows one with every value, `open-rs check NAME` examines it, and any value can be set
on the command line: `open-rs train open-rs3 train.max_steps=100 reward.terms.1.weight=1.5 model.lora={rank: 16}`.
"""


def handbook() -> str:
    """The whole page."""
    parts = [HEADER, *_recipes(), *_budget(), *_memory(), *_keys()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _recipes() -> Iterator[str]:
    yield "## Shipped recipes"
    yield (
        f"Cost at the paper's pace: ${PAPER_USD:.0f} for at most {PAPER_TOKENS:,} sampled tokens of a 1.5B model; "
        "`open-rs check` measures yours."
    )
    rows = [listing(load_recipe(name)) for name in shipped_names()]
    yield _table(
        ("recipe", "steps", "completions", "tokens each", "cost", "about"),
        [
            (
                f"`{row['name']}`",
                f"{row['steps']:,}",
                f"{row['completions']:,}",
                f"{row['max_completion_length']:,}",
                row["cost"],
                row["about"],
            )
            for row in rows
        ],
    )


def _budget() -> Iterator[str]:
    yield "## Budget"
    yield (
        "Any limit that is set binds. Wall time counts; steps and schedule are fitted to what is left after the "
        "reserve for the last evaluation, from what the last steps took. The run ends inside the limit, saved "
        "and evaluated, with the learning rate at its floor. `ledger.json` in the run adds up seconds, dollars and "
        "tokens, by phase, over all resumes."
    )
    fields = BudgetConfig.model_fields
    meanings = {
        "usd": "dollars; needs a price",
        "gpu_hour_usd": "price of one GPU for an hour; alone it sets no limit",
        "gpus": "how many are paid for",
        "hours": "wall time",
        "reserve_for_evaluation": "share kept for the end; more, where the first evaluation took more",
    }
    rows = [
        (f"`budget.{name}`", f"`{info.default}`", meanings.get(name) or info.description or "")
        for name, info in fields.items()
    ]
    yield _table(("key", "default", "meaning"), rows)


def _memory() -> Iterator[str]:
    shape = Shape.of(R1_DISTILL_QWEN_1_5B)
    yield "## Memory plans for DeepSeek-R1-Distill-Qwen-1.5B"
    yield (
        f"{shape.parameters:,} weights, {shape.layers} layers of width {shape.hidden:,} (inner {shape.inner:,}, "
        f"queries {shape.query_width:,}, keys {shape.key_width}), {shape.vocabulary:,} words. Sampling and updating "
        "take turns; the larger is the peak. `benchmarks/memory_plan.py` holds the formulas beside measured peaks."
    )
    for card, size, name, overrides in PLANS:
        recipe = load_recipe(name, [*overrides, "model.device=cuda"])
        plan = plan_memory(recipe, shape, _Cuda())  # pyright: ignore[reportArgumentType]
        fits = "fits" if plan.peak <= size else "does not fit"
        changed = " ".join(overrides)
        yield f"### {card}: `{name}`{' with `' + changed + '`' if changed else ''}"
        yield f"Peak {show_bytes(plan.peak)} while {plan.peak_at}, of {show_bytes(size)}: {fits}."
        yield _table(("item", "arithmetic", "updating", "sampling"), _plan_rows(recipe, shape, plan))


class _Cuda:
    """Stands for a GPU on a machine that has none."""

    type = "cuda"


def _plan_rows(recipe: Recipe, shape: Shape, plan: MemoryPlan) -> list[tuple[str, ...]]:
    items = {**plan.updating, **plan.sampling}
    arithmetic = _arithmetic(recipe, shape)
    rows = [
        (
            item,
            arithmetic[item],
            *(show_bytes(moment[item]) if item in moment else "" for moment in (plan.updating, plan.sampling)),
        )
        for item in items
        if items[item]
    ]
    totals = [show_bytes(sum(moment.values())) for moment in (plan.updating, plan.sampling)]
    return [*rows, ("**together**", "", *totals)]


def _arithmetic(recipe: Recipe, shape: Shape) -> dict[str, str]:
    lora = recipe.model.lora
    trainable = shape.parameters if lora is None else shape.adapter_parameters(lora)
    adapters = "" if lora is None else f" + {trainable:,} adapter weights x 4 B"
    tokens = micro_batch_tokens(recipe, shape)
    rows = min(recipe.rollout.max_concurrent, recipe.train.prompts_per_step * recipe.rollout.num_generations)
    row = recipe.prompt.max_prompt_length + recipe.rollout.max_completion_length
    return {
        "weights": f"{shape.parameters:,} x 2 B{adapters}",
        "masters": f"{trainable:,} x 2 B (the 16 bits that bf16 cuts off)",
        "optimizer": f"{trainable:,} x {MOMENT_BYTES[recipe.optimizer.name]:g} B",
        "reference": f"{shape.parameters:,} x 2 B",
        "gradients": f"{trainable:,} x 4 B",
        "activations": f"{tokens:,} tokens x {shape.layers} layers x {shape.hidden:,} x 2 B",
        "scratch": "one layer recomputed for its gradient, or one tile of logits",
        "cache": f"{rows} sequences x {row:,} tokens x {shape.layers} layers x 2 x {shape.key_width} x 2 B",
    }


def _keys() -> Iterator[str]:
    keys = known_keys().values()
    yield "## Recipes of TRL, open-r1 and open-rs"
    yield (
        f"`open-rs train grpo.yaml` and `open-rs translate grpo.yaml` take a flat file. {len(keys)} keys are known: "
        "every key of the paper's Table 5 and of its release, of open-r1's script arguments, of TRL 0.14 to 1.16's "
        "GRPOConfig, ModelConfig and ScriptArguments, and of the TrainingArguments that they inherit. What a file "
        "leaves out is pinned to the default of the TRL that it was written for: the newest whose keys fit, or "
        "`--written-for trl==0.15`. Prompts a step need the number of processes, `--num-processes`. An unknown key is "
        "refused with the nearest name."
    )
    for fate, title in (
        ("kept", "Kept or renamed"),
        ("meant", "Read together"),
        ("ignored", "Ignored, and why"),
        ("refused", "Refused where they ask for something, and why"),
    ):
        yield f"### {title}"
        rows = [_key_row(key) for key in keys if key.fate == fate]
        yield _table(("key", "from", "versions", "default", "here"), sorted(rows))


def _key_row(key: Key) -> tuple[str, ...]:
    here = f"`{key.goes_to}`" if key.fate == "kept" else key.why
    if key.since is None:
        versions = ""
    elif key.until is None:
        versions = f"{show_version(key.since)} on"
    else:
        versions = f"{show_version(key.since)} to {show_version(key.until)}"
    return f"`{key.name}`", key.home, versions, _defaults(key), here


def _defaults(key: Key) -> str:
    if key.home == INHERITED or len(key.defaults) < 2:
        return "" if not key.defaults else f"`{key.defaults[0][1]}`"
    return ", ".join(f"`{value}` ({show_version(since)})" for since, value in key.defaults)


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
