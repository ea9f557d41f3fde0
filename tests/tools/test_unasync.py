"""tools/unasync.py: each rule, the header, stable output, and every way in which `--check` must fail."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "unasync.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unimq_tools_unasync", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tool = _load()

# Uses every rule once, so that "a rule is not used" stays silent.
SOURCE = '''"""AsyncClient: made by connect_async()."""

from collections.abc import AsyncIterator

from ._wait import wait
from ._sender import AsyncSender, Handle


class AsyncClient:
    async def __aenter__(self):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise StopAsyncIteration

    async def send(self, message):
        async with self.lock as lock:
            async for item in lock:
                await wait(item)
        return (await self.links[0]).done


async def opened(url) -> AsyncIterator[AsyncClient]:
    yield await connect_async(url)
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "p" / "_async").mkdir(parents=True)
    (tmp_path / "p" / "_async" / "_client.py").write_text(SOURCE)
    (tmp_path / "p" / "_async" / "_wait.py").write_text("async def wait(item): ...\n")
    return tmp_path


def run(tree: Path, *arguments: str) -> int:
    pairs = [tool.Pair("p/_async", "p/_sync", frozenset({"_wait.py"}))]
    code: int = tool.main(list(arguments), root=tree, pairs=pairs)
    return code


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def f(): ...", "def f(): ..."),
        ("async with a as b:", "with a as b:"),
        ("async for a in b:", "for a in b:"),
        ("x = await f(await g())", "x = f(g())"),
        ("(await x).y", "(x).y"),
        ("await (a or b)", "(a or b)"),
        ("AsyncClient, AsyncSender, AsyncTransaction", "Client, Sender, Transaction"),
        ("AsyncIterator[int], AsyncContextManager", "Iterator[int], ContextManager"),
        ("__aenter__ __aexit__ __aiter__ __anext__", "__enter__ __exit__ __iter__ __next__"),
        ("raise StopAsyncIteration", "raise StopIteration"),
        ("connect_async(url)", "connect(url)"),
        ("import asyncio; asyncio.run(f)", "import asyncio; asyncio.run(f)"),
        ("awaited = reawait(1)", "awaited = reawait(1)"),
        ("is_async = True", "is_async = True"),
        ("In async, `await` stands before it.", "In async, `await` stands before it."),
    ],
)
def test_rules(source: str, expected: str) -> None:
    assert tool.Unasync().text(source) == expected


def test_writes_then_checks_clean_and_leaves_hand_written_files_alone(tree: Path, capsys: Any) -> None:
    assert run(tree) == 0
    made = (tree / "p" / "_sync" / "_client.py").read_text()
    assert made.startswith("# Generated from p/_async/_client.py by tools/unasync.py; do not edit.\n")
    assert "sync def" not in made.replace("do not edit", "")
    assert "await" not in made
    assert "Async" not in made
    compile(made, "made", "exec")
    assert not (tree / "p" / "_sync" / "_wait.py").exists()
    assert run(tree, "--check") == 0
    capsys.readouterr()
    assert run(tree) == 0
    assert capsys.readouterr().out == ""  # a second run writes nothing


def test_imports_are_sorted_by_their_new_names(tree: Path) -> None:
    run(tree)
    made = (tree / "p" / "_sync" / "_client.py").read_text()
    assert "from ._sender import Handle, Sender" in made


def test_check_fails_on_an_edited_file_and_shows_the_difference(tree: Path, capsys: Any) -> None:
    run(tree)
    path = tree / "p" / "_sync" / "_client.py"
    path.write_text(path.read_text().replace("return self", "return None"))
    assert run(tree, "--check") == 1
    said = capsys.readouterr().err
    assert "make generate" in said
    assert "-        return None" in said
    assert "return None" in path.read_text()  # only compared


def test_check_fails_when_nothing_was_generated(tree: Path) -> None:
    assert run(tree, "--check") == 1


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_an_unused_rule_is_a_failure(tree: Path, capsys: Any, mode: list[str]) -> None:
    path = tree / "p" / "_async" / "_client.py"
    path.write_text(path.read_text().replace("connect_async", "connect_later"))
    run(tree)
    capsys.readouterr()
    assert run(tree, *mode) == 1
    assert "connect_async" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_a_generated_file_without_source_is_a_failure(tree: Path, capsys: Any, mode: list[str]) -> None:
    run(tree)
    (tree / "p" / "_sync" / "_old.py").write_text(tool.HEADER.format(source="p/_async/_old.py"))
    assert run(tree, *mode) == 1
    assert "p/_sync/_old.py has no source in p/_async: delete it" in capsys.readouterr().err


def test_a_missing_source_directory_is_a_failure(tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path) == 1
    assert "p/_async is not there" in capsys.readouterr().err
