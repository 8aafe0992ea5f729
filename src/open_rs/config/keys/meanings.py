"""What groups of keys mean together: each function reads a flat recipe and gives dotted keys with their values.

A function raises `RefusedError` where the recipe asks for what can't be had; keys that contradict
each other are both named.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from open_rs.config.keys.file import File, Meaning, RefusedError, mapping, pick
from open_rs.config.keys.reward_keys import rewards

CUT_OFF_LIMIT = 4096  # tokens; versions of TRL that had no max_prompt_length took a prompt of any length
VALIDATION_PROBLEMS = 64
DATA_SUFFIXES = (".json", ".jsonl", ".gz", ".parquet", ".csv")
PEFT_TARGETS = ["q_proj", "v_proj"]  # PEFT's own choice for Qwen2 and Llama where none is named


def prompts(file: File) -> Meaning:
    """Completions of one optimiser step, divided into groups."""
    if file.get("generation_batch_size") is not None and file.get("steps_per_generation") is not None:
        raise RefusedError("`generation_batch_size` and `steps_per_generation` say the same thing twice; keep one")
    generations, accumulation = file.get("num_generations"), file.get("gradient_accumulation_steps")
    processes, steps = num_processes(file), _steps_per_generation(file)
    completions = max(steps, accumulation) * _device_batch(file) * processes
    if completions % generations:
        raise RefusedError(
            f"`per_device_train_batch_size` x `gradient_accumulation_steps` x {processes} processes = {completions} "
            f"completions are no whole number of groups of `num_generations` {generations}; give --num-processes"
        )
    return {"train.prompts_per_step": completions // generations, "algorithm.num_minibatches": _minibatches(file)}


def num_processes(file: File) -> int:
    """Training processes: as told, as the file says, as open-rs was launched (3 of 4 GPUs), or the fewest that fit."""
    told = file.processes or file.get("num_processes")
    if told is not None:
        return int(told)
    if file.family == "open-rs":
        return 3
    device_batch, generations = _device_batch(file), file.get("num_generations")
    accumulation = file.get("gradient_accumulation_steps")
    if file.get("generation_batch_size") is not None:
        return max(1, file.get("generation_batch_size") // (device_batch * accumulation))
    share = device_batch if file.version < (0, 18) else device_batch * accumulation
    return generations // math.gcd(share, generations)


def length(file: File) -> Meaning:
    """Steps; TRL counts optimiser steps, of which one batch of rollouts can have several."""
    if file.get("max_steps", -1) > 0:
        return {"train.max_steps": math.ceil(file.get("max_steps") / _updates_per_step(file))}
    return {"train.num_train_epochs": file.get("num_train_epochs")}


def prompt_limit(file: File) -> Meaning:
    return {"prompt.max_prompt_length": file.get("max_prompt_length", CUT_OFF_LIMIT)}


def cuts(file: File) -> Meaning:
    return {"rollout.top_k": max(0, file.get("top_k", 0)), "rollout.min_p": file.get("min_p", 0.0)}


def dtype(file: File) -> Meaning:
    """Autocast to bf16 over fp32 weights is bf16 working weights over fp32 masters."""
    if file.get("torch_dtype") and file.get("dtype") and file.get("torch_dtype") != file.get("dtype"):
        raise RefusedError("`torch_dtype` and `dtype` contradict each other; keep one")
    if file.get("fp16") and file.given.get("bf16"):
        raise RefusedError("`fp16` and `bf16` contradict each other; keep bf16")
    arguments = mapping(file, "model_init_kwargs")
    named = file.get("dtype") or file.get("torch_dtype") or arguments.get("dtype") or arguments.get("torch_dtype")
    name = str(named or "float32").removeprefix("torch.")
    if file.get("fp16") or name in ("float16", "fp16", "half"):
        raise RefusedError("`fp16`: half precision needs loss scaling, which is not here; use `bf16: true`")
    autocast = file.values.get("bf16") is None or file.values.get("bf16")
    if name in ("float32", "fp32") and autocast:
        name = "bfloat16"
    return {"model.dtype": {"bf16": "bfloat16", "fp32": "float32"}.get(name, name)}


def loss(file: File) -> Meaning:
    name = file.get("loss_type")
    if name == "bnpo":
        micro_batch, generations = _device_batch(file), file.get("num_generations")
        name = {1: "grpo", generations: "release"}.get(micro_batch, "dapo")
    if name == "cispo":
        return {"algorithm.loss_type": "dapo", "algorithm.objective": "cispo"}
    if name not in ("grpo", "dapo", "dr_grpo", "release"):
        raise RefusedError(f"`loss_type: {name}` is not here; use grpo, dapo, dr_grpo, bnpo or cispo")
    return {"algorithm.loss_type": name}


def scaling(file: File) -> Meaning:
    value = file.values.get("scale_rewards")
    return {"algorithm.scale_rewards": {True: "group", False: "none", None: "group"}.get(value, value)}


def schedule(file: File) -> Meaning:
    """Name, warm-up and floor."""
    name, arguments = str(file.get("lr_scheduler_type")), dict(mapping(file, "lr_scheduler_kwargs"))
    meaning: Meaning = {"optimizer.lr_scheduler_type": name, "optimizer.warmup_ratio": _warmup(file)}
    if name not in SCHEDULES:
        near = get_close_matches(name, SCHEDULES, n=1, cutoff=0.0)[0]
        raise RefusedError(
            f"`lr_scheduler_type: {name}` is not here; the nearest is `{near}`, known: {', '.join(SCHEDULES)}"
        )
    floor, floor_rate = arguments.pop("min_lr", None), arguments.pop("min_lr_rate", None)
    if name == "cosine_with_min_lr":
        if (floor is None) == (floor_rate is None):
            raise RefusedError(
                "`lr_scheduler_type: cosine_with_min_lr` wants min_lr or min_lr_rate in `lr_scheduler_kwargs`"
            )
        meaning["optimizer.min_lr_rate"] = floor_rate if floor is None else floor / file.get("learning_rate")
    unknown = {key: value for key, value in arguments.items() if (key, value) != ("num_cycles", 0.5)}
    if unknown:
        raise RefusedError(f"`lr_scheduler_kwargs`: {', '.join(unknown)} can't be had; min_lr and min_lr_rate can")
    return meaning


def optimizer(file: File) -> Meaning:
    name = "adafactor" if file.get("adafactor") else str(file.get("optim", "adamw_torch"))
    if "adamw" not in name or "4bit" in name:
        raise RefusedError(f"`optim: {name}` is not here; use adamw_torch or adamw_8bit")
    return {"optimizer.name": "adamw_8bit" if "8bit" in name else "adamw"}


def adapter(file: File) -> Meaning:
    if not file.get("use_peft"):
        return {}
    return {
        "model.lora": {
            "rank": file.get("lora_r", 16),
            "alpha": file.get("lora_alpha", 32),
            "dropout": file.get("lora_dropout", 0.05),
            "target_modules": file.get("lora_target_modules", PEFT_TARGETS),
            "use_rslora": file.get("use_rslora", False),
        }
    }


def attention(file: File) -> Meaning:
    name = file.get("attn_implementation")
    return {"model.attn_implementation": name} if name in ("sdpa", "eager") else {}


def server(file: File) -> Meaning:
    url = file.get("vllm_server_base_url")
    if url is None and (
        file.given.keys() & {"vllm_server_host", "vllm_server_port"} or file.get("vllm_mode") == "server"
    ):
        url = f"http://{file.get('vllm_server_host', '127.0.0.1')}:{file.get('vllm_server_port', 8000)}"
    return {} if url is None else {"rollout.vllm.server_url": url}


def correction(file: File) -> Meaning:
    if not (file.get("use_vllm") and file.get("vllm_importance_sampling_correction")):
        return {"algorithm.sampler_correction_cap": None}
    if file.get("vllm_importance_sampling_clip_min") is not None:
        raise RefusedError("`vllm_importance_sampling_clip_min`: weights are bounded from above only")
    of_the_day = 2.0 if file.version < (0, 26) else 3.0
    given = file.get("vllm_importance_sampling_clip_max", file.get("vllm_importance_sampling_cap"))
    return {"algorithm.sampler_correction_cap": of_the_day if given is None else float(given)}


def checkpoints(file: File) -> Meaning:
    """Every so many steps, and how many to keep."""
    total, every = file.get("max_steps", -1), file.get("save_steps", 500)
    if every < 1 and total <= 0:
        return {}
    meaning: Meaning = {}
    if file.get("save_strategy", "steps") == "steps":
        every = max(1, round(every * total)) if every < 1 else every
        meaning["train.save_steps"] = math.ceil(every / _updates_per_step(file))
    kept = file.get("save_total_limit", math.ceil(total / every) if total > 0 and every >= 1 else None)
    return meaning if kept is None else meaning | {"train.keep_checkpoints": kept}


def validation(file: File) -> Meaning:
    strategy = str(file.get("eval_strategy", file.get("evaluation_strategy", "no")))
    if not file.get("do_eval") and strategy in ("no", "False"):
        return {}
    meaning: Meaning = {"validation.num_problems": VALIDATION_PROBLEMS}
    every = file.get("eval_steps")
    if every is not None and every >= 1:
        meaning["validation.every_steps"] = math.ceil(every / _updates_per_step(file))
    if file.get("num_generations_eval") is not None:
        meaning["validation.samples"] = file.get("num_generations_eval")
    return meaning


def data(file: File) -> Meaning:
    """One data set: a Hub id or a local file."""
    mixture = file.get("dataset_mixture") or ({"datasets": file.get("datasets")} if file.get("datasets") else None)
    if mixture is None:
        configs = file.get("dataset_configs", [])
        return _data_set(
            file.get("dataset_name"), file.get("dataset_config", configs[0] if len(configs) == 1 else None)
        )
    if file.get("dataset_name") is not None:
        raise RefusedError("`dataset_name` and `dataset_mixture` contradict each other; keep one")
    parts = mixture["datasets"]
    if len(parts) != 1:
        raise RefusedError(
            f"`dataset_mixture`: {len(parts)} data sets; make one of them with `open-rs curate`, then name that"
        )
    part = parts[0]
    meaning = _data_set(part.get("id") or part.get("path"), part.get("config") or part.get("name"))
    return meaning | ({"data.split": part["split"]} if part.get("split") else {})


def model_arguments(file: File) -> Meaning:
    arguments = mapping(file, "model_init_kwargs")
    harmless = ("dtype", "torch_dtype", "use_cache", "low_cpu_mem_usage", "device_map")
    return pick(arguments, MODEL_ARGUMENTS, harmless, "model_init_kwargs")


def sampling_arguments(file: File) -> Meaning:
    """What `generation_kwargs` holds has already taken the place of the keys of the same names."""
    known = {name: f"rollout.{name}" for name in SAMPLING}
    return pick(mapping(file, "generation_kwargs"), known, (), "generation_kwargs")


def device(file: File) -> Meaning:
    return {"model.device": "cpu"} if file.get("use_cpu") or file.get("no_cuda") else {}


def _device_batch(file: File) -> int:
    return file.get("per_gpu_train_batch_size") or file.get("per_device_train_batch_size")


def _steps_per_generation(file: File) -> int:
    """Accumulation steps that one generation batch lasts."""
    if file.get("generation_batch_size") is None:
        return file.get("steps_per_generation") or file.get("gradient_accumulation_steps")
    share = _device_batch(file) * num_processes(file)
    if file.get("generation_batch_size") % share:
        raise RefusedError(
            f"`generation_batch_size` {file.get('generation_batch_size')} does not divide by "
            f"`per_device_train_batch_size` x {num_processes(file)} processes = {share}"
        )
    return file.get("generation_batch_size") // share


def _minibatches(file: File) -> int:
    """Optimiser steps in one pass over a generation batch."""
    steps, accumulation = _steps_per_generation(file), file.get("gradient_accumulation_steps")
    if steps > accumulation and steps % accumulation:
        raise RefusedError(
            f"`steps_per_generation` {steps} is no multiple of `gradient_accumulation_steps` {accumulation}"
        )
    return max(1, steps // accumulation)


def _updates_per_step(file: File) -> int:
    return file.get("num_iterations", 1) * _minibatches(file)


def _warmup(file: File) -> float:
    steps, ratio, total = file.get("warmup_steps", 0), file.get("warmup_ratio", 0.0), file.get("max_steps", -1)
    if not steps:
        return ratio
    share = steps if steps < 1 else steps / total
    if share < 0:
        raise RefusedError("`warmup_steps` is a share of the run only where `max_steps` is given; use `warmup_ratio`")
    if ratio and not math.isclose(share, ratio, rel_tol=0.01):
        raise RefusedError(f"`warmup_steps` {steps} and `warmup_ratio` {ratio} contradict each other; keep one")
    return share


def _data_set(name: str | None, config: str | None) -> Meaning:
    if name is None:
        return {}
    if name.endswith(DATA_SUFFIXES):
        return {"data.path": name}
    return {"data.name": name} | ({"data.config": config} if config else {})


IDLE: dict[str, tuple[Callable[[File], Any], str]] = {  # a key that says nothing where the condition holds, and why
    "num_train_epochs": (lambda file: file.get("max_steps", -1) > 0, "max_steps decides"),
    "max_steps": (lambda file: file.get("max_steps", -1) <= 0, "num_train_epochs decides"),
    "bf16": (lambda file: file.given.get("torch_dtype") or file.given.get("dtype"), "the dtype of the model decides"),
    "do_eval": (lambda file: not file.get("do_eval"), "asks for nothing"),
    "eval_strategy": (lambda file: str(file.get("eval_strategy")) in ("no", "False"), "asks for nothing"),
    "use_peft": (lambda file: not file.get("use_peft"), "asks for nothing"),
    "use_cpu": (lambda file: not file.get("use_cpu"), "asks for nothing"),
    "no_cuda": (lambda file: not file.get("no_cuda"), "asks for nothing"),
    "fp16": (lambda file: not file.get("fp16"), "asks for nothing"),
    "adafactor": (lambda file: not file.get("adafactor"), "asks for nothing"),
    "warmup_steps": (lambda file: not file.get("warmup_steps"), "warmup_ratio decides"),
    "warmup_ratio": (lambda file: file.get("warmup_steps"), "warmup_steps decides"),
}
SCHEDULES = ("cosine_with_min_lr", "cosine", "linear", "constant", "constant_with_warmup")
SAMPLING = ("temperature", "top_p", "top_k", "min_p")
MODEL_ARGUMENTS = {
    "attn_implementation": "model.attn_implementation",
    "revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
}
MEANINGS: dict[str, Callable[[File], Meaning]] = {
    function.__name__: function
    for function in (
        prompts, length, prompt_limit, cuts, dtype, loss, scaling, schedule, optimizer, rewards, adapter, attention,
        server, correction, checkpoints, validation, data, model_arguments, sampling_arguments, device,
    )
}  # fmt: skip
