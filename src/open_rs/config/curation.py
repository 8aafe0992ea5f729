"""Every knob of a curation recipe: where problems come from, the stages they pass, and how a recipe file is read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from open_rs.config.load import SHIPPED, merge, override, read_yaml
from open_rs.config.schema import ModelConfig, PromptConfig, RolloutConfig, Section
from open_rs.types import UserError

SHIPPED_CURATIONS = SHIPPED / "curate"


class Stage(Section):
    """What every stage has: the paper's count after it, where there is one, to print beside ours."""

    published_rows: int | None = Field(None, ge=0, description="rows that the paper reports after this stage")


class ExtractStage(Stage):
    """The answer is the last `\\boxed{}` of the solution; rows without one are dropped."""

    stage: Literal["extract"]
    field: str = Field("solution", description="column of the solution; the answer's own text where there is none")


class AuditStage(Stage):
    """Drop golds that don't grade themselves: a right answer to them could never be rewarded."""

    stage: Literal["audit"]
    timeout_seconds: float = Field(5.0, gt=0)


class RuleConfig(Section):
    """One rule: a name of `open_rs.data.filters.RULES` or `module:function`, and its parameters."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _accept_a_bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class RulesStage(Stage):
    """Drop what a rule names; the first rule that applies gives the reason."""

    stage: Literal["rules"]
    rules: tuple[RuleConfig, ...] = Field(min_length=1)


class DeduplicateStage(Stage):
    """Keep one row of each family of repeated problems; families whose answers disagree are dropped or settled."""

    stage: Literal["deduplicate"]
    near: bool = True
    threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity of 3-token runs")
    conflicts: Literal["drop", "majority"] = "drop"


class DecontaminateStage(Stage):
    """Drop training problems that repeat a benchmark's."""

    stage: Literal["decontaminate"]
    copy_share: float = Field(0.5, gt=0, le=1, description="share of the item's 8-token runs, with the same answer")
    reasked_share: float = Field(0.6, gt=0, le=1, description="the same with another answer, and all numbers")
    paraphrase_share: float = Field(0.4, gt=0, le=1, description="share of 4-token runs, with the same answer")


class PassRateStage(Stage):
    """Measure how often a model solves each problem, and keep a band.

    A problem is sampled until its interval at `confidence` is as narrow as `half_width`, between `min_samples` and
    `max_samples`.
    """

    stage: Literal["pass_rate"]
    model: ModelConfig = ModelConfig()
    prompt: PromptConfig = PromptConfig()
    rollout: RolloutConfig = RolloutConfig(temperature=0.7, top_p=0.9, max_completion_length=4096)
    min_samples: int = Field(4, ge=1)
    max_samples: int = Field(64, ge=1)
    half_width: float = Field(0.15, gt=0, lt=0.5)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0
    above: float = Field(0.0, ge=0, le=1, description="keep rates of at least this")
    below: float = Field(1.0, ge=0, le=1, description="keep rates of at most this")
    expected_tokens: int | None = Field(None, ge=1, description="tokens of a usual completion, for --plan")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_samples > self.max_samples:
            raise ValueError(f"min_samples: {self.min_samples} exceeds max_samples, {self.max_samples}")
        if self.above > self.below:
            raise ValueError(f"above: {self.above} exceeds below, {self.below}; no rate lies between them")
        return self


class JudgeStage(Stage):
    """Ask a language model whether a question is usable; the reply's first word decides."""

    stage: Literal["judge"]
    prompt: str = Field("noisy-or-multi-part-v1", description="a name of `open_rs.data.judge.PROMPTS`, or a text file")
    model: ModelConfig = ModelConfig()
    rollout: RolloutConfig = RolloutConfig(temperature=0.0, max_completion_length=16)
    expected_tokens: int = Field(4, ge=1, description="tokens of a usual reply, for --plan")


class BandStage(Stage):
    """Keep rows whose numeric column lies in [above, below]; rows without a value are dropped."""

    stage: Literal["band"]
    field: str = "pass_rate"
    above: float | None = None
    below: float | None = None


class LabelStage(Stage):
    """Write one value into a column of every row, for example `level: Hard`."""

    stage: Literal["label"]
    field: str = "level"
    value: str


class QuotaStage(Stage):
    """Keep at most so many rows of each value of a column, drawn by seed; `default` is for values not in `rows`."""

    stage: Literal["quota"]
    by: str = "source"
    rows: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    default: int | None = Field(None, ge=0, description="absent: no limit for values that `rows` does not name")
    seed: int = 42


class SampleStage(Stage):
    """Keep so many rows, drawn by seed. Where there are fewer they are all kept, and the funnel says so."""

    stage: Literal["sample"]
    rows: int = Field(ge=1)
    seed: int = 42


StageConfig = Annotated[
    ExtractStage
    | AuditStage
    | RulesStage
    | DeduplicateStage
    | DecontaminateStage
    | PassRateStage
    | JudgeStage
    | BandStage
    | LabelStage
    | QuotaStage
    | SampleStage,
    Field(discriminator="stage"),
]


class SourceConfig(Section):
    """One stream of rows: a known source, a file, a Hub set or another curation recipe, with stages of its own."""

    name: str | None = Field(None, description="a source of `open-rs sources`, or a Hub data set id")
    path: str | None = Field(None, description="a local file, or a directory that `open-rs curate` wrote")
    recipe: str | None = Field(None, description="another curation recipe, whose result is read here")
    label: str | None = Field(None, description="value of the `source` column; the source's own name when absent")
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    question_field: str | None = None
    answer_field: str | None = None
    answer_rule: Literal["plain", "last_box", "after_hashes"] | None = None
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column: theirs, for solution, level, domain, ..."
    )
    limit: int | None = Field(None, ge=1)
    max_chars: int = Field(100_000, ge=1, description="longer questions are dropped before anything reads them")
    published_rows: int | None = Field(None, ge=0)
    stages: tuple[StageConfig, ...] = ()

    @model_validator(mode="after")
    def _names_one_place(self) -> Self:
        named = [key for key in ("name", "path", "recipe") if getattr(self, key) is not None]
        if len(named) != 1:
            found = " and ".join(named) if named else "none"
            raise ValueError(f"name: a source has exactly one of name, path and recipe; this one has {found}")
        return self


class HeldOutConfig(Section):
    """Rows set aside from the result, by seed, into `validation`."""

    rows: int = Field(0, ge=0)
    seed: int = 42


class RehearsalConfig(Section):
    """Try a recipe in minutes before its models are paid for; reaches into the recipes that it reads as well."""

    limit: int | None = Field(default=None, ge=1, description="rows of each source")
    model: str | None = Field(default=None, description="in place of every model, sampled by the local engine")
    max_completion_length: int = Field(default=128, ge=1, description="tokens, where `model` is set")


class CurationRecipe(Section):
    """A complete curation: sources, then stages over their union. `because` gives reasons, keyed by dotted name."""

    name: str = "unnamed"
    about: str = ""
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    stages: tuple[StageConfig, ...] = ()
    benchmarks: tuple[str, ...] | Literal["all"] = Field(
        "all", description="what the result is checked against, always"
    )
    directories: tuple[str, ...] = Field((), description="folders with copies of sources and benchmarks; else the Hub")
    held_out: HeldOutConfig = HeldOutConfig(rows=0)
    rehearsal: RehearsalConfig = RehearsalConfig()
    allow_contaminated: bool = Field(False, description="write rows that repeat a benchmark; training then asks again")
    because: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _is_a_file_name(cls, name: str) -> str:
        if not name or Path(name).name != name:
            raise ValueError(f"name: `{name}` can't name a directory")
        return name


def load_curation(name_or_path: str | Path, overrides: Sequence[str] = ()) -> CurationRecipe:
    """Read a curation recipe by shipped name or path, with one `extends` and dotted overrides.

    Raises UserError for a missing file, an unknown name, key or stage, or a value out of range.
    `load_curation("open-rs", ["sources.0.limit=300", "directories=[copies]"])`
    """
    path = find_curation(name_or_path)
    tree = override(_read_tree(path), overrides)
    try:
        return CurationRecipe.model_validate(tree)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(fault) for fault in error.errors())
        raise UserError("\n".join(f"{path.stem}: {line}" for line in lines)) from None


def rehearsed(recipe: CurationRecipe, rehearsal: RehearsalConfig) -> CurationRecipe:
    """The recipe with the rehearsal's limit on every source and its model in every stage; the same without one."""
    if rehearsal == RehearsalConfig():
        return recipe
    sources = (_rehearse_source(source, rehearsal) for source in recipe.sources)
    update = {"sources": tuple(sources), "stages": _rehearse(recipe.stages, rehearsal), "rehearsal": rehearsal}
    return recipe.model_copy(update=update)


def _rehearse_source(source: SourceConfig, rehearsal: RehearsalConfig) -> SourceConfig:
    limit = rehearsal.limit or source.limit
    return source.model_copy(update={"limit": limit, "stages": _rehearse(source.stages, rehearsal)})


def _rehearse(stages: Sequence[Stage], rehearsal: RehearsalConfig) -> tuple[Stage, ...]:
    if rehearsal.model is None:
        return tuple(stages)
    model, length = ModelConfig(name_or_path=rehearsal.model), rehearsal.max_completion_length
    return tuple(
        stage.model_copy(
            update={
                "model": model,
                "rollout": stage.rollout.model_copy(update={"engine": "local", "max_completion_length": length}),
            }
        )
        if isinstance(stage, PassRateStage | JudgeStage)
        else stage
        for stage in stages
    )


def find_curation(name_or_path: str | Path) -> Path:
    """The file behind a shipped name or a path."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    shipped = SHIPPED_CURATIONS / f"{path.name}.yaml"
    if path.name == str(name_or_path) and shipped.is_file():
        return shipped
    known = curation_names()
    near = difflib.get_close_matches(str(name_or_path), known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else "."
    raise UserError(f"{name_or_path}: no such curation recipe{hint} Give a YAML file or one of {', '.join(known)}")


def _read_tree(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in `path` laid over the one that it extends, which stands beside it or is shipped."""
    here = path.resolve()
    if here in seen:
        raise UserError(f"{path}: extends itself by way of {seen[-1].name}; remove one `extends`")
    tree = read_yaml(path)
    parent = tree.pop("extends", None)
    named = {"name": path.stem, **tree}
    if parent is None:
        return named
    beside = path.parent / str(parent)
    return merge(_read_tree(beside if beside.is_file() else find_curation(str(parent)), (*seen, here)), named)


def curation_names() -> list[str]:
    """Names of the curation recipes in the package, sorted."""
    return sorted(path.stem for path in SHIPPED_CURATIONS.glob("*.yaml"))


def _explain(fault: Mapping[str, Any]) -> str:
    location = tuple(part for part in fault["loc"] if part not in STAGES)
    dotted = ".".join(str(part) for part in location)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = _keys_beside(fault["loc"])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else "."
        return f"`{dotted}` is no key here{hint} Known: {', '.join(known)}"
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"{dotted}: a stage is named by `stage:`, one of {', '.join(STAGES)}"
    if fault["type"] == "value_error":
        return f"{dotted}.{message}" if dotted else message
    return f"{dotted}: {message[:1].lower()}{message[1:]}"


def _keys_beside(location: Sequence[str | int]) -> list[str]:
    tag = next((part for part in reversed(location) if part in STAGES), None)
    if tag is not None and location[-2] == tag:
        return list(STAGES[str(tag)].model_fields)
    places = {"sources": SourceConfig, "held_out": HeldOutConfig, "rules": RuleConfig}
    places |= {"model": ModelConfig, "prompt": PromptConfig, "rollout": RolloutConfig}
    parent = next((part for part in reversed(location[:-1]) if part in places), None)
    model = places[str(parent)] if parent is not None else CurationRecipe
    return list(model.model_fields)


STAGES: dict[str, type[Stage]] = {
    get_args(model.model_fields["stage"].annotation)[0]: model for model in get_args(get_args(StageConfig)[0])
}
