"""Makes a local generator of a form's name; each model library is imported only when it is used.

Knows which forms can run on this machine. Chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ondol.backends.protocols import Generator, GeneratorHealth
from ondol.core.errors import ModelError, SettingsError
from ondol.core.settings.sections import GenerationSettings
from ondol.models.builds import LLAMACPP, find_build
from ondol.models.generator_form import NATIVE, PORTABLE, GeneratorForm
from ondol.models.generators import GeneratorSetup, is_loadable, load_generator
from ondol.models.library import ModelFiles

OnState = Callable[[GeneratorHealth], None]


@dataclass(frozen=True, slots=True)
class GeneratorBuild:
    """What a generator is made of: the form with its figures, the files, the settings."""

    plan: GeneratorForm
    files: ModelFiles
    settings: GenerationSettings
    builds: Path
    on_state: OnState | None = None


def builds_folder(home: Path) -> Path:
    """Return where native builds lie under ``ONDOL_HOME``."""
    return home / "builds"


def native_builds(home: Path) -> list[str]:
    """Return the hashes of the native builds that can run here: part of a measurement's key."""
    found = find_build(builds_folder(home), LLAMACPP)
    return [] if found is None else [found[1].sha256]


def offered_forms(home: Path) -> tuple[str, ...]:
    """Return the local forms that this machine can run a GGUF model in, the reference first."""
    here = {
        PORTABLE: find_spec("xllamacpp") is not None,
        NATIVE: bool(native_builds(home)),
        **dict.fromkeys(_GENAI, find_spec("openvino_genai") is not None),
    }
    return tuple(form for form, runs in here.items() if runs)


def make_generator(build: GeneratorBuild) -> Generator:
    """Return a started generator in the plan's form.

    Raises ``SettingsError`` for a form that there is not, ``ModelError`` for one that is not built.
    """
    form = build.plan.form
    if form in _MAKERS:
        return _MAKERS[form](build)
    if not is_loadable(form):
        raise SettingsError(
            f"generation.form = {form!r} is not a form of a generator",
            hint=f"choose auto or one of: {', '.join([*_MAKERS, *_GENAI])}",
            param="generation.form",
        )
    if build.settings.adapters:
        raise SettingsError(
            f"{form} has no LoRA adapters",
            hint="choose a llamacpp form, or clear generation.adapters",
            param="generation.adapters",
        )
    return _loaded(build)


def _portable(build: GeneratorBuild) -> Generator:
    if find_spec("xllamacpp") is None:
        raise ModelError(
            "the package xllamacpp, which runs llama.cpp, is not installed",
            hint="pip install xllamacpp, or build your own: ondol models build llamacpp",
        )
    return _llamacpp(build, program=None)


def _native(build: GeneratorBuild) -> Generator:
    found = find_build(build.builds, LLAMACPP)
    if found is None:
        raise ModelError(
            f"there is no native build of llama.cpp {LLAMACPP.version} for this processor",
            hint="ondol models build llamacpp",
        )
    return _llamacpp(build, program=found[0])


def _llamacpp(build: GeneratorBuild, *, program: Path | None) -> Generator:
    from ondol.backends.llamacpp_generator import LlamaCppGenerator
    from ondol.backends.llamacpp_slots import parse_adapters

    settings, plan = build.settings, build.plan
    return LlamaCppGenerator(
        build.files.model_path,
        model=build.files.entry.id,
        form=plan.form,
        context_tokens=settings.context_tokens,
        slots=settings.slots,
        threads=plan.threads,
        batch_tokens=plan.batch_tokens,
        cache_mib=settings.cache_mb,
        device=settings.device,
        adapters=parse_adapters(settings.adapters),
        program=program,
        on_state=build.on_state,
    )


def _loaded(build: GeneratorBuild) -> Generator:
    settings, plan = build.settings, build.plan
    setup = GeneratorSetup(
        model=build.files.entry.id,
        context_tokens=settings.context_tokens,
        slots=settings.slots,
        threads=plan.threads,
        batch_tokens=plan.batch_tokens,
        on_state=build.on_state,
    )
    return load_generator(plan.form, build.files.model_path, setup)


_GENAI = ("openvino-genai:q4", "openvino-genai:int8")
_MAKERS: dict[str, Callable[[GeneratorBuild], Generator]] = {PORTABLE: _portable, NATIVE: _native}
