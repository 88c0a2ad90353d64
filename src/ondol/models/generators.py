"""Generators by the name of their form: the one place that maps it to a backend.

``openvino-genai:q4`` and ``int8`` are made of a GGUF file once and kept beside it;
``transformers:<precision>[@cuda]`` loads a folder as the Hub lays it out. Libraries are imported
late, and one that is missing is named with its extra. Knows nothing of slots and queues.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from ondol.backends.protocols import Generator, GeneratorHealth, as_model_error
from ondol.core.errors import ModelError
from ondol.core.extras import install_command
from ondol.kernels.gguf import read_gguf
from ondol.models import genai_build
from ondol.models.genai_weights import (
    Aliases,
    GenAIPrecision,
    find_aliases,
    rewrite,
    write_tokenizer,
)
from ondol.models.manifest import lock_path, locked

_SYNTAX = re.compile(r"(openvino-genai|transformers):([a-z0-9_]+)(?:@(cuda))?")
_TRANSFORMERS = ("fp32", "fp16", "bf16", "int8", "nf4")
_GENAI: tuple[GenAIPrecision, ...] = get_args(GenAIPrecision)
_BUILD_SECONDS = 900.0
_VERSION = 1
_OPENING = "<|im_start|>"
_LIBRARIES = {
    "openvino-genai": ("openvino_genai",),
    "transformers": ("torch", "transformers"),
}


@dataclass(frozen=True, slots=True)
class GeneratorSetup:
    """How a generator is to be loaded; ``threads`` 0 takes the cores this process may use."""

    model: str
    context_tokens: int = 4096
    slots: int = 2
    threads: int = 0
    batch_tokens: int = 256
    on_state: Callable[[GeneratorHealth], None] | None = None


@dataclass(frozen=True, slots=True)
class _Form:
    runtime: str
    precision: str
    device: str


def is_loadable(form: str) -> bool:
    """Return whether ``form`` is the name of a form that ``load_generator`` knows."""
    return _SYNTAX.fullmatch(form) is not None


def load_generator(form: str, path: Path, setup: GeneratorSetup) -> Generator:
    """Load ``path`` (a GGUF file for OpenVINO GenAI, a Hub-shaped folder for transformers).

    Blocks until the model is ready; the first use of an ``openvino-genai`` form builds it. Raises
    ``ModelError`` for a name, file or library that will not do.
    """
    found = _parse(form)
    _need(found.runtime, precision=found.precision)
    if found.runtime == "openvino-genai":
        return _openvino_genai(found, form, path, setup)
    from ondol.backends.transformers_generator import TransformersGenerator

    return TransformersGenerator(
        path,
        model=setup.model,
        form=form,
        precision=found.precision,  # type: ignore[arg-type]  # _parse knows the names
        device=found.device,
        context_tokens=setup.context_tokens,
        threads=setup.threads,
        batch_tokens=setup.batch_tokens,
        on_state=setup.on_state,
    )


def _openvino_genai(found: _Form, form: str, path: Path, setup: GeneratorSetup) -> Generator:
    from ondol.backends.openvino_genai_generator import GenAIFiles, OpenVinoGenAIGenerator

    folder = build_genai(path, precision="q4" if found.precision == "q4" else "int8")
    facts = json.loads((folder / "form.json").read_text())
    files = GenAIFiles(
        model=folder,
        tokenizer=folder / "tokenizer.gguf",
        opening=facts["opening"],
        aliases=tuple(facts["aliases"]),
    )
    return OpenVinoGenAIGenerator(
        files,
        model=setup.model,
        form=form,
        context_tokens=setup.context_tokens,
        slots=setup.slots,
        threads=setup.threads,
        batch_tokens=setup.batch_tokens,
        on_state=setup.on_state,
    )


def build_genai(path: Path, *, precision: GenAIPrecision) -> Path:
    """Return the folder of the form, built beside the GGUF file where it is not there yet.

    Takes about the time of reading the file ten times, and memory of about three times its size.
    Raises ``ModelError``; what is half built never bears the final name.
    """
    folder = path.parent / f"openvino-genai-{precision}"
    if _is_built(folder, path):
        return folder
    with locked(lock_path(path.parent.parent, path.parent.name)):
        if not _is_built(folder, path):
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                _build(path, partial, precision)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _build(path: Path, folder: Path, precision: GenAIPrecision) -> None:
    rewritten = folder / "weights.gguf"
    with as_model_error():
        aliases = find_aliases(read_gguf(path), opening=_OPENING)
        rewrite(path, rewritten, precision=precision, aliases=aliases)
        write_tokenizer(path, folder / "tokenizer.gguf")
    command = [sys.executable, "-P", str(genai_build.__file__), str(rewritten)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_BUILD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{path.name} was not built for OpenVINO GenAI within {_BUILD_SECONDS:g} s",
            hint="use a llamacpp form",
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise ModelError(
            f"{path.name} could not be built for OpenVINO GenAI: {said[-1]}",
            hint="use a llamacpp form; if memory ran out, free some",
        )
    rewritten.unlink()
    (folder / "form.json").write_text(json.dumps(_facts(path, aliases)))


def _facts(path: Path, aliases: Aliases | None) -> dict[str, object]:
    return {
        "version": _VERSION,
        "bytes": path.stat().st_size,
        "opening": aliases.first if aliases else -1,
        "aliases": list(aliases.ids) if aliases else [],
    }


def _is_built(folder: Path, path: Path) -> bool:
    try:
        facts = json.loads((folder / "form.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(facts.get("version") == _VERSION and facts.get("bytes") == path.stat().st_size)


def _parse(form: str) -> _Form:
    found = _SYNTAX.fullmatch(form)
    runtime, precision, device = found.groups() if found else ("", "", None)
    known = _GENAI if runtime == "openvino-genai" else _TRANSFORMERS
    if precision not in known or (device and runtime == "openvino-genai"):
        raise ModelError(
            f"{form!r} is not the name of a generator's form",
            hint="there are openvino-genai:q4, openvino-genai:int8, and transformers:"
            f"{'|'.join(_TRANSFORMERS)}, each of these also with @cuda",
            param="form",
        )
    return _Form(runtime, precision, device or "cpu")


def _need(runtime: str, *, precision: str) -> None:
    libraries = list(_LIBRARIES[runtime])
    if precision in ("int8", "nf4") and runtime == "transformers":
        libraries.append("bitsandbytes")
    for library in libraries:
        if find_spec(library) is None:
            raise ModelError(
                f"{library} is not installed, which {runtime}:{precision} needs",
                hint=install_command(runtime),
            )
