"""Every ```python block of README and docs is run; every link between pages leads somewhere.

Rules
- The blocks of a page share a namespace and run in order; a page has a memory:// of its own, UNIMQ_URL too.
- A broker's URL in a string of a block becomes the page's memory URL: what is shown is what users write.
- A block may be marked, in its info string or in an HTML comment on the line before it:
      <!-- run: none, REASON -->      only compiled
      <!-- run: rabbitmq -->          run where UNIMQ_RABBITMQ_URL names a broker, against that; else only compiled
- `await` at the top of a block works. A block that is not Python is ```text.
- An unmarked block that fails is a failure, at the line of the page where it stands.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
import types
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL_PAGES = [*PAGES, *sorted(ROOT.glob("C*.md"))]

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<info>.*)$")
_MARK = re.compile(r"run:\s*(?P<where>\w+)\s*(?:,\s*(?P<reason>[^>]*?))?\s*(?:-->|$)")
_BROKER_URL = re.compile(r"\b(?:kafkas?|eventhubs|amqps?|stomps?|activemqs?|sb)://[^\"'\s)]*")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?://|mailto:|#)(?P<to>[^)#\s]+)")


@dataclass(frozen=True)
class Block:
    line: int  # of the first line of code in the page
    code: str
    where: str | None  # the mark: none, or a broker's name
    reason: str


def blocks(text: str) -> list[Block]:
    """The python blocks of a page. ValueError for a mark without a reason, or a fence that does not close."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    begin, body, before = 0, list[str](), ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None:
            if fence is None or fence["info"].strip() or len(fence["ticks"]) < len(opened["ticks"]):
                body.append(line.removeprefix(opened["indent"]))
                continue
            info = opened["info"].strip()
            if re.match(r"(python|py)\b", info):
                mark = _MARK.search(info) or (_MARK.search(before) if before.startswith("<!--") else None)
                where, reason = (mark["where"], mark["reason"] or "") if mark else (None, "")
                if where == "none" and not reason:
                    raise ValueError(f"line {begin}: `run: none` needs a reason: <!-- run: none, REASON -->")
                found.append(Block(begin + 1, "\n".join(body) + "\n", where, reason))
            opened, before = None, ""
        elif fence is not None:
            opened, begin, body = fence, number, []
        elif line.strip():
            before = line.strip()
    if opened is not None:
        raise ValueError(f"line {begin}: the code block is not closed")
    return found


def run_page(page: Path, text: str, url: str) -> int:
    """Runs the blocks of a page; how many were run. Exceptions come with the page's own line numbers."""
    name = f"page_{uuid.uuid4().hex}"
    module = types.ModuleType(name)  # a real module: dataclasses and type hints look their names up there
    sys.modules[name] = module
    ran = 0
    try:
        with asyncio.Runner() as runner:
            for block in blocks(text):
                broker = os.environ.get(f"UNIMQ_{block.where.upper()}_URL") if block.where else None
                code = block.code if block.where else _BROKER_URL.sub(url, block.code)
                compiled: Any = compile(
                    "\n" * (block.line - 1) + code,
                    str(page),
                    "exec",
                    flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                    dont_inherit=True,
                )
                if block.where and not broker:
                    continue
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("UNIMQ_URL", broker or url)
                    if compiled.co_flags & inspect.CO_COROUTINE:
                        runner.run(types.FunctionType(compiled, module.__dict__)())
                    else:
                        exec(compiled, module.__dict__)
                ran += 1
    finally:
        del sys.modules[name]
    return ran


def _has_code(page: Path) -> bool:
    return re.search(r"^ *```+ *(python|py)\b", page.read_text("utf-8"), re.M) is not None


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if _has_code(page)]
)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, page.read_text("utf-8"), f"memory://docs-{uuid.uuid4().hex}")


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in ALL_PAGES])
def test_links(page: Path) -> None:
    text = page.read_text("utf-8")
    broken = [to for to in _LINK.findall(text) if not (page.parent / to).exists()]
    assert broken == []


# ----------------------------------------------------------------------------------------- the runner, shown to bite
def run(text: str) -> int:
    return run_page(Path("page.md"), text, "memory://here")


def test_blocks_share_a_namespace_in_order() -> None:
    assert run("```python\na = 1\n```\ntext\n```python\nassert a == 1\n```\n") == 2


def test_a_failing_block_fails_at_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("# title\n\n```python\na = 1\n1 / 0\n```\n")
    assert caught.traceback[-1].lineno + 1 == 5


def test_urls_become_the_pages_own_and_the_environments() -> None:
    text = '```python\nimport os\nassert "amqp://guest:guest@localhost/" == os.environ["UNIMQ_URL"] == "memory://here"\n```\n'
    assert run(text) == 1


def test_await_at_the_top_and_definitions_that_survive() -> None:
    assert (
        run("```python\nimport asyncio\nawait asyncio.sleep(0)\nb = 2\n```\n```python\nassert b == 2\n```\n")
        == 2
    )


@pytest.mark.parametrize(
    "mark", ["<!-- run: none, no broker here -->\n```python", "```python run: none, no broker here"]
)
def test_a_marked_block_is_only_compiled(mark: str) -> None:
    assert run(f"{mark}\n1 / 0\n```\n") == 0
    with pytest.raises(SyntaxError):
        run(f"{mark}\nclass:\n```\n")


def test_a_mark_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        run("<!-- run: none -->\n```python\n1\n```\n")


def test_a_broker_block_runs_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '<!-- run: rabbitmq -->\n```python\nimport os\nassert os.environ["UNIMQ_URL"] == "amqp://real"\n```\n'
    )
    monkeypatch.delenv("UNIMQ_RABBITMQ_URL", raising=False)
    assert run(text) == 0
    monkeypatch.setenv("UNIMQ_RABBITMQ_URL", "amqp://real")
    assert run(text) == 1


def test_an_open_fence_is_a_failure() -> None:
    with pytest.raises(ValueError, match="not closed"):
        blocks("```python\na = 1\n")


def test_other_languages_are_left_alone() -> None:
    assert run("```text\nnot python\n```\n```\nnor this\n```\n```sh\nmake demo\n```\n") == 0
