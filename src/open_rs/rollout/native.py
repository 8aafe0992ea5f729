"""The kernels of `kernels.c`: compiled on first use by the machine's own compiler, kept in the user's cache directory.

Where there is no compiler that knows OpenMP, `load_kernels` gives None and the decoder takes torch's operators: the
same numbers up to rounding, slower. `OPEN_RS_KERNELS=off` asks for that.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import c_double, c_int64, c_void_p
from functools import cache
from hashlib import blake2b
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")  # the variable CC goes before them
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
FLAGS_OF_DTYPE: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.bfloat16: ("-DBFLOAT16",)}
LANES, WIDE, MAX_WIDTH = 16, 32, 256  # as in kernels.c
COMPILER_SECONDS = 60


class AttentionArguments(ctypes.Structure):
    """`attention` of kernels.c: what every step of one layer reads and writes, as addresses."""

    _fields_ = (
        ("cosine", c_void_p),
        ("signed_sine", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("slot_tokens", c_int64),
        ("query_heads", c_int64),
        ("heads", c_int64),
        ("width", c_int64),
        ("epsilon", c_double),
    )


class Kernels:
    """The compiled functions for one dtype. Tensors must be contiguous, of that dtype, and on the CPU."""

    def __init__(self, library: ctypes.CDLL):
        self._rms_norm, self._attend = library.rms_norm, library.attend
        self._rms_norm.argtypes = (c_void_p, c_void_p, c_double, c_int64, c_int64, c_int64, c_void_p)
        self._attend.argtypes = (c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_void_p)
        self._rms_norm.restype = self._attend.restype = None

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """`x` [n, d] over its root mean square, times `weight` [d]; `d` is a multiple of `LANES`."""
        assert x.is_contiguous()
        out = torch.empty_like(x)
        rows, width = x.shape
        threads = torch.get_num_threads()
        self._rms_norm(x.data_ptr(), weight.data_ptr(), epsilon, rows, width, threads, out.data_ptr())
        return out

    def attend(self, arguments: AttentionArguments, projected: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Turn, keep and attend, as kernels.c says: `projected` [n, (Hq + 2 H) D], `positions` [n] to [n, Hq D]."""
        assert projected.is_contiguous() and positions.is_contiguous()
        out = projected.new_empty(projected.shape[0], arguments.query_heads * arguments.width)
        address, threads = ctypes.addressof(arguments), torch.get_num_threads()
        self._attend(address, projected.data_ptr(), positions.data_ptr(), len(projected), threads, out.data_ptr())
        return out


def fits(dtype: torch.dtype, model_width: int, head_width: int) -> bool:
    """Whether the kernels know this dtype and these widths."""
    return dtype in FLAGS_OF_DTYPE and model_width % LANES == 0 and head_width % WIDE == 0 and head_width <= MAX_WIDTH


@cache
def load_kernels(dtype: torch.dtype) -> Kernels | None:
    """The kernels for that dtype, compiled where this machine has not done so yet; None where it can't."""
    if os.environ.get("OPEN_RS_KERNELS") == "off":
        return None
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), *COMPILERS))), None)
    if compiler is None:
        logger.warning("no C compiler (cc, gcc, clang) found: sampling on the CPU takes the slower path; install gcc")
        return None
    command = [compiler, *FLAGS, *FLAGS_OF_DTYPE[dtype], str(SOURCE), "-lm"]
    try:
        return Kernels(ctypes.CDLL(str(_compiled(command))))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        first = reason.strip().partition("\n")[0]
        logger.warning("%s can't build the sampling kernels, so the slower path is taken: %s", compiler, first)
        return None


def _compiled(command: list[str]) -> Path:
    """The library that `command` makes, from the cache where it is there."""
    facts = [SOURCE.read_text(), *command, str(Path(command[0]).stat().st_mtime_ns), _processor()]
    name = blake2b("\0".join(facts).encode(), digest_size=12).hexdigest()
    target = _cache_directory() / f"kernels-{name}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as directory:
            made = Path(directory) / target.name
            settings = {"check": True, "capture_output": True, "text": True, "timeout": COMPILER_SECONDS}
            subprocess.run([*command, "-o", str(made)], **settings)
            made.replace(target)  # at once, so that two processes may do this side by side
    return target


def _cache_directory() -> Path:
    """Ours alone: a library that others could write would run as us."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "open-rs"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = os.access(directory, os.W_OK)
    except OSError:
        usable = False
    return directory if usable else Path(tempfile.mkdtemp(prefix="open-rs-kernels-"))


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags"))
