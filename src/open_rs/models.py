"""A causal language model and its tokenizer, from a Hub id or a directory: device, dtype, adapters, stop ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from open_rs.config.schema import LoraConfig, ModelConfig
from open_rs.types import UserError

EMBEDDED_MODEL = "open-rs-tiny"
transformers_logging.disable_progress_bar()  # it would tear the live line


@dataclass(frozen=True)
class CausalLM:
    """A loaded model. `module` holds the working weights that both the learner and the local engine read."""

    module: Any  # a transformers PreTrainedModel, or a PeftModel around one
    tokenizer: PreTrainedTokenizerBase
    name: str
    device: torch.device
    dtype: torch.dtype
    stop_ids: frozenset[int]
    context_length: int

    @property
    def base(self) -> Any:
        """The transformers model itself, with adapters inside its layers where there are any."""
        return self.module.get_base_model() if self.has_adapter else self.module

    @property
    def has_adapter(self) -> bool:
        """Whether only a low-rank adapter is trained, so that the base stays as it was."""
        return isinstance(self.module, PeftModel)

    @torch.no_grad()
    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (Hugging Face name, tensor): adapters merged in, and a tied `lm_head.weight` named as well."""
        adapted = {name: layer for name, layer in self.base.named_modules() if isinstance(layer, LoraLayer)}
        for name, weight in self.base.state_dict().items():
            owner, _, leaf = name.rpartition(".base_layer.")
            if owner in adapted and leaf == "weight":
                yield f"{owner}.weight", _merged_weight(adapted[owner])
            elif owner in adapted:
                yield f"{owner}.{leaf}", weight
            elif ".lora_" not in name:
                yield name, weight

    def save_pretrained(self, directory: Path) -> None:
        """Save weights (adapters merged) and tokenizer so that plain `transformers` loads them."""
        state = {name: weight.contiguous() for name, weight in self.named_weights()}
        if self.base.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        self.base.save_pretrained(directory, state_dict=state)
        self.tokenizer.save_pretrained(directory)

    def save_adapter(self, directory: Path) -> None:
        """Save the adapter alone, in PEFT's layout; the model must have one."""
        assert self.has_adapter, "no adapter to save"
        self.module.save_pretrained(directory)


def _merged_weight(layer: Any) -> torch.Tensor:
    weight = layer.base_layer.weight
    merged = weight.float()
    for name in layer.active_adapters:
        merged = merged + layer.get_delta_weight(name).float()
    return merged.to(weight.dtype)


def embedded_model_directory() -> Path:
    """The tiny reasoning model that ships with the package."""
    return Path(str(files("open_rs") / "assets" / EMBEDDED_MODEL))


def resolve_device(device: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 elsewhere."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer alone, for work that needs no weights. Raises UserError as `load_model` does."""
    location = _location(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            location, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise _cannot_load("tokenizer", config, error) from error
    tokenizer.chat_template = config.chat_template or tokenizer.chat_template
    return tokenizer


def load_model(config: ModelConfig) -> CausalLM:
    """Load weights and tokenizer, add the adapter if one is asked for, and check that they fit together.

    Raises UserError where the model can't be found, needs remote code, has no tokenizer, or has fewer embeddings than
    its tokenizer has words.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    tokenizer = load_tokenizer(config)
    try:
        module: Any = AutoModelForCausalLM.from_pretrained(
            _location(config),
            revision=config.revision,
            dtype=dtype,
            attn_implementation=config.attn_implementation,
            trust_remote_code=config.trust_remote_code,
        )
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load("model", config, error) from error
    _check_vocabulary(module, tokenizer, config)
    module = module.to(device).eval()
    if config.lora is not None:
        module = _add_adapter(module, config.lora)
    return wrap(module, tokenizer, config.name_or_path)


def wrap(module: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> CausalLM:
    """Describe a model that is already in memory."""
    weight = next(module.parameters())
    return CausalLM(
        module=module,
        tokenizer=tokenizer,
        name=name,
        device=weight.device,
        dtype=weight.dtype,
        stop_ids=stop_ids(module, tokenizer),
        context_length=getattr(module.config, "max_position_embeddings", None) or tokenizer.model_max_length,
    )


def stop_ids(module: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a completion: those of the generation config, the model config and the tokenizer."""
    found: set[int] = set()
    for ids in (module.generation_config.eos_token_id, module.config.eos_token_id, tokenizer.eos_token_id):
        found.update([ids] if isinstance(ids, int) else ids or [])  # pyright: ignore[reportArgumentType]
    return frozenset(found)


def _location(config: ModelConfig) -> str:
    return str(embedded_model_directory()) if config.name_or_path == EMBEDDED_MODEL else config.name_or_path


def _cannot_load(what: str, config: ModelConfig, error: Exception) -> UserError:
    place = Path(config.name_or_path)
    if place.is_dir():
        advice = "the directory must hold a transformers checkpoint: config.json, weights, tokenizer"
    elif place.exists() or config.name_or_path.startswith((".", "/", "~")):
        advice = "no such directory; give a Hub id, a directory, or `open-rs-tiny`"
    else:
        advice = "check the Hub id and the network, or give a local directory, or `open-rs-tiny`"
    first_line = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return UserError(f"model.name_or_path: can't load the {what} of `{config.name_or_path}` ({first_line}); {advice}")


def _check_vocabulary(module: Any, tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> None:
    rows = module.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"model.name_or_path: the tokenizer of `{config.name_or_path}` has {len(tokenizer)} words but the model "
            f"embeds {rows}; use the tokenizer that belongs to the model"
        )


def _add_adapter(module: Any, lora: LoraConfig) -> Any:
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  (PEFT divides it; a float is as good)
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng():  # PEFT draws from the global generator
            torch.manual_seed(lora.seed)
            return get_peft_model(module, config)
    except ValueError as error:
        raise UserError(
            f"model.lora.target_modules: {error}; name linear layers of the model, or `all-linear`"
        ) from error
