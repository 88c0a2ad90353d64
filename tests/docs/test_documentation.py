"""The documents tell the truth: commands parse, settings exist, code compiles, pages are current."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import click
import pytest
from scripts.write_reference import pages

import ondol
from ondol.cli.invocation import Invocation
from ondol.cli.main import cli
from ondol.core.settings import known_keys

ROOT = Path(__file__).resolve().parents[2]
GENERATED = set(pages())
WRITTEN = [
    path
    for path in [
        *ROOT.glob("*.md"),
        *(
            page
            for room in ("benchmarks", "docs", "examples")
            for page in ROOT.glob(f"{room}/**/*.md")
        ),
    ]
    if path not in GENERATED
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(ondol [^`]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
SECTIONS = {key.rpartition(".")[0] for key in known_keys()} - {""}
SETTING = re.compile(
    rf"((?:{'|'.join(sorted({s.partition('.')[0] for s in SECTIONS}))})\.[a-z_.*]+)( ?=|$)"
)


def is_setting(key: str) -> bool:
    """Whether ``key`` is a setting, or a pattern such as ``lanes.*.queue`` that settings match."""
    return any(fnmatchcase(known, key) for known in known_keys())


def named_settings(text: str) -> Iterator[str]:
    """Yield what ``text`` gives out as a setting: in inline code, after ``--set``, in a TOML block.

    Names of modules, of files and of Python objects in inline code are none.
    """
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        if match := SETTING.match(code):
            yield match[1]
    yield from re.findall(r"--set[ =]([a-z_.]+)=", text)
    for language, block in FENCE.findall(text):
        if language == "toml":
            yield from _toml_settings(block)


def _toml_settings(block: str) -> Iterator[str]:
    """Yield the keys of a block that is an ``ondol.toml``: one of its tables is a section."""
    tables = re.findall(r"^\[([a-z_.]+)\]\n((?:(?!\[).*\n)*)", block, re.MULTILINE)
    if not any(table in SECTIONS for table, _ in tables):
        return
    for table, lines in tables:
        yield from (f"{table}.{key}" for key in re.findall(r"^([a-z_]+) *=", lines, re.MULTILINE))


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted(paths)]


def blocks(path: Path, *languages: str) -> Iterator[str]:
    for language, text in FENCE.findall(path.read_text("utf-8")):
        if language in languages:
            yield text


def command_lines(path: Path) -> list[str]:
    """Return every ``ondol …`` line of the shell blocks: what a reader would paste."""
    fenced = "\n".join(blocks(path, "", "bash", "sh")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in fenced if _is_command(line.strip())]


def mentions(path: Path) -> list[str]:
    """Return every ``ondol …`` of inline code: commands that are named, arguments left out.

    Decision records may name what is yet to come.
    """
    if path.parent.name == "adr":
        return []
    return [line for line in INLINE.findall(_prose(path)) if _is_command(line)]


def parse(line: str) -> None:
    """Walk the command tree with the line's words; raises ``click.UsageError``."""
    command: click.Command = cli
    words = shlex.split(line, comments=True)[1:]
    parent = None
    name = "ondol"
    while True:
        ctx = command.make_context(name, list(words), parent=parent, obj=Invocation())
        if not isinstance(command, click.Group):
            return
        found, inner, words = command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        if found is None or inner is None:
            raise click.UsageError(f"no command in {line!r}")
        command, parent, name = inner, ctx, found


@pytest.mark.parametrize("name", names(WRITTEN))
def test_every_command_line_parses(name: str) -> None:
    for line in command_lines(ROOT / name):
        try:
            parse(line)
        except click.ClickException as error:
            pytest.fail(f"{name}: `{line}`: {error.format_message()}")
    for line in mentions(ROOT / name):
        try:
            parse(line)
        except (click.exceptions.Exit, click.MissingParameter):
            continue
        except click.ClickException as error:
            pytest.fail(f"{name}: `{line}`: {error.format_message()}")


def test_command_lines_are_found_at_all() -> None:
    assert len(command_lines(ROOT / "README.md")) >= 10
    assert len(command_lines(ROOT / "README.ko.md")) >= 8


@pytest.mark.parametrize("line", ["ondol serch x", "ondol search x -c y --nonsense", "ondol ask"])
def test_a_wrong_command_line_would_be_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


@pytest.mark.parametrize("name", names(WRITTEN))
def test_python_blocks_compile(name: str) -> None:
    for number, block in enumerate(blocks(ROOT / name, "python"), start=1):
        compile(block, f"{name}, block {number}", "exec")


@pytest.mark.parametrize("name", names([*WRITTEN, *GENERATED]))
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        if (path.parent / target).resolve().is_relative_to(ROOT):
            assert (path.parent / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", names([*WRITTEN, *GENERATED]))
def test_settings_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert not [key for key in named_settings(text) if not is_setting(key)]
    variables = {f"ONDOL_{key.replace('.', '_').upper()}" for key in known_keys()}
    for word in re.findall(r"\bONDOL_[A-Z_]*[A-Z]\b", text):
        assert word in variables | {
            "ONDOL_CONFIG",
            "ONDOL_SHARED_DATA",
            "ONDOL_TEST_KILLS",
            "ONDOL_TEST_MODELS",
        }, f"{name} names {word}"


@pytest.mark.parametrize(
    "text",
    [
        "`lanes.queue_seconds`",
        "`lanes.chat.patience`",
        "`lanes.nobody.queue`",
        '`retrieval.fuse = "scores"`',
        "`ondol --set generation.modell=auto serve`",
        "```bash\nondol ask x -c y --set answer.passage=3\n```",
        "```toml\n[lanes.chat]\npatience = 3\n```",
        "```toml\n[serve]\nport = 3\n[retrieval]\ntop_k = 3\n```",
        "`lanes.*.nothing`",
    ],
)
def test_a_setting_that_does_not_exist_would_be_noticed(text: str) -> None:
    assert [key for key in named_settings(text) if not is_setting(key)]


def test_nothing_speaks_of_numbered_issues() -> None:
    """An issue of another project is named with its repository."""
    spoken = re.compile(r"\bissues? #?\d+|\b(?:fixes|closes|see) #\d+", re.IGNORECASE)
    code = [
        path for room in ("benchmarks", "src", "tests") for path in ROOT.glob(f"{room}/**/*.py")
    ]
    for path in [*WRITTEN, *code]:
        for line in path.read_text("utf-8").splitlines():
            told = re.sub(r"[\w.-]+/[\w.-]+ (?:issue )?#?\d+", "", line)
            assert not spoken.search(told), f"{path.relative_to(ROOT)}: {line.strip()}"


def test_results_are_named_for_what_they_show() -> None:
    results = ROOT / "benchmarks" / "results"
    pages_shown = set(LINK.findall((results / "README.md").read_text("utf-8")))
    for path in results.iterdir():
        assert not re.search(r"\d", path.name), path.name
        if path.suffix != ".svg" and path.name != "README.md":
            assert path.name in pages_shown, f"results/README.md does not list {path.name}"


@pytest.mark.parametrize("name", names(list(GENERATED)))
def test_generated_pages_are_current(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == pages()[ROOT / name], "run `make docs`"


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in WRITTEN:
        text = "\n".join([*blocks(path, "bash", ""), *re.findall(r"`([^`\n]+)`", _prose(path))])
        for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
            assert target in targets, f"{path.name}: make {target}"


def test_every_helpful_target_is_listed_in_the_makefile() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    helped = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert helped >= {"demo", "serve", "test", "setup", "models", "lint", "types", "lock", "clean"}
    phony = text.partition(".PHONY:")[2].partition("\n\n")[0]
    assert helped == set(phony.replace("\\\n", " ").split())


def test_the_public_surface_is_what_all_says() -> None:
    assert set(dir(ondol)) == set(ondol.__all__)
    for name in ondol.__all__:
        assert getattr(ondol, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        ondol.nonsense  # noqa: B018


def _is_command(line: str) -> bool:
    return re.match(r"(\.venv/bin/)?ondol ", line) is not None and "…" not in line


def _prose(path: Path) -> str:
    return FENCE.sub("", path.read_text("utf-8"))
