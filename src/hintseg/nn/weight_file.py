"""Tensors out of files that anybody may have written. No code of the file runs."""

from __future__ import annotations

import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor

from hintseg.errors import WeightsError, cut, list_problems, printable, shown
from hintseg.files.parse import is_file

WRAPPERS = ("state_dict", "model")
"""Keys under which training programs put the state dict; one may lie in the other."""

LONGEST_NAME = 200
"""The most characters of a class's name in a pickle."""

_NEEDED = "Needed: a whole file with a state dict of tensors, as .safetensors or written by torch.save"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a .safetensors or .pth file by name, and the metadata of the former.

    Raises:
        WeightsError: The file is missing, cut off, compressed, or holds something else than dense tensors of finite
            numbers.
    """
    if not is_file(path):
        raise WeightsError(f"no weight file '{path}'. {_NEEDED}")
    metadata: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                content: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        else:
            _refuse_compressed(path)
            _refuse_long_names(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about storages that no longer exist
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file raises nearly anything; none of it is a bug of ours
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"'{path}' cannot be read as network weights ({cut(reason, 200)}). {_NEEDED}") from error
    for _ in WRAPPERS:
        inner = next((content[k] for k in WRAPPERS if k in content), None) if isinstance(content, Mapping) else None
        content = inner if isinstance(inner, Mapping) else content
    if not isinstance(content, Mapping):
        raise WeightsError(f"'{path}' holds a {type(content).__name__}, not a state dict of tensors")
    tensors = {printable(str(name)[:500]): value for name, value in content.items() if isinstance(value, Tensor)}
    wrong = [f"{shown(name)}: {why}" for name, tensor in tensors.items() if (why := _why_not(tensor))]
    if wrong:
        raise WeightsError(list_problems(f"'{path}' as network weights", wrong, limit=5))
    return tensors, metadata


def _refuse_compressed(path: Path) -> None:
    """Refuse an archive that grows when it is read; torch.save does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > 2 * path.stat().st_size:
            raise ValueError(f"it is compressed, and {size:,} bytes when unpacked")


def _refuse_long_names(path: Path) -> None:
    """Refuse names of classes that nobody gave: torch takes minutes to word its error about one of 32,000 brackets."""
    with ExitStack() as stack:
        pickles = 4  # what torch.save wrote before it wrote archives
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            pickles, file = 1, stack.enter_context(archive.open(name))
        for _ in range(pickles):
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "INST") and len(str(argument)) > LONGEST_NAME:
                    raise ValueError(f"it names a class of {len(str(argument)):,} characters")


def _why_not(tensor: Tensor) -> str:
    """Return why a tensor cannot be a weight, or an empty string."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return "is no dense tensor of plain numbers"
    if tensor.is_complex():
        return "holds complex numbers"
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return "repeats its values to a larger shape"
    if tensor.is_floating_point() and tensor.numel() and not bool(torch.isfinite(tensor.float().sum())):
        return "holds NaN or infinity"
    return ""
