"""Every command of the README and of docs/ runs, in order, in one folder a document.

A fenced ``bash`` block is run line by line, a ``python`` block as a program. One HTML comment right above may say more:
``<!-- exits: 0 1 -->`` which exit codes are right (0 otherwise), ``<!-- file: NAME -->`` that the block is the content
of a file, ``<!-- run-by: ci -->`` that it sets up an environment, which ``.ci/run`` does word by word, and
``<!-- in-checkout: WHAT -->`` that it changes the checkout, or runs in the changed one: that happens in a copy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<key>run-by|exits|file|in-checkout): (?P<value>[^>]+) -->\n)?"
    r"^```(?P<language>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LANGUAGES = {"bash", "python", "toml"}


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands and what its comment says."""

    place: str
    language: str
    body: str
    run_by_ci: bool = False
    exits: tuple[int, ...] = (0,)
    file: str | None = None
    in_checkout: str | None = None


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    blocks = []
    for match in BLOCK.finditer(text):
        key, value = match["key"], (match["value"] or "").strip()
        blocks.append(
            Block(
                place=f"{document.name}:{text.count(chr(10), 0, match.start('language')) + 1}",
                language=match["language"],
                body=match["body"],
                run_by_ci=key == "run-by" and value == "ci",
                exits=tuple(map(int, value.split())) if key == "exits" else (0,),
                file=value if key == "file" else None,
                in_checkout=value if key == "in-checkout" else None,
            )
        )
    return blocks


def commands_of(block: Block) -> list[str]:
    lines = block.body.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


ALL = [block for document in DOCUMENTS for block in blocks_of(document)]


def put_files(folder: Path) -> None:
    """The files a reader is told to have: a model of their own in two versions, a dynamic one, a photograph."""
    shipped = ROOT / "inas_deploy" / "data" / "csnet-x1.onnx"
    for name in ("model.onnx", "old.onnx", "new.onnx"):
        shutil.copy(shipped, folder / name)
    dynamic = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("GlobalAveragePool", ["input"], ["output"])],
            "dynamic",
            [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])],
            [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["batch", 3, 1, 1])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(dynamic, folder / "dynamic.onnx")
    rows, columns = np.mgrid[0:240, 0:320]
    disc = ((rows - 110) ** 2 + (columns - 170) ** 2 < 70**2)[..., None]
    photo = np.where(disc, np.array([210, 60, 40]), np.stack([columns // 2, rows // 2, rows // 3 + 60], axis=-1))
    Image.fromarray(photo.astype(np.uint8)).save(folder / "photo.jpg")


def run_checked(command: list[str], folder: Path, block: Block, shown: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    told = f"{block.place}: exit {done.returncode}, not {block.exits}, from:\n{shown}\n{done.stdout[-2000:]}"
    told += f"\n{done.stderr[-3000:]}"
    assert done.returncode in block.exits, told
    assert "Traceback" not in done.stderr, told


@pytest.mark.timeout(1500)  # some forty processes and one TFLite export, on a host that may be busy
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    put_files(tmp_path)
    for block in blocks_of(document):
        if block.run_by_ci or block.in_checkout:
            continue
        if block.file is not None:
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
        elif block.language == "python":
            run_checked([sys.executable, "-c", block.body], tmp_path, block, block.body)
        else:
            for command in commands_of(block):
                run_checked(["bash", "-c", command], tmp_path, block, command)


def test_a_space_is_added_as_told(tmp_path: Path) -> None:
    told = [block for block in ALL if block.in_checkout]
    assert len(told) == 3
    for name in ("inas_deploy", "targets", "search", "training", "tests/search"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for block in told:
        if block.in_checkout == "run":
            for command in commands_of(block):
                run_checked(["bash", "-c", command], tmp_path, block, command)
        elif block.in_checkout.startswith("line in "):
            where, _, path = block.in_checkout.removeprefix("line in ").partition(" of ")
            text = (tmp_path / path).read_text(encoding="utf-8")
            begin = re.search(rf"^{where}\b.* = \{{\n", text, re.MULTILINE)
            assert begin is not None, block.place
            changed = text[: begin.end()] + block.body + text[begin.end() :]
            (tmp_path / path).write_text(changed, encoding="utf-8")
        else:
            (tmp_path / block.in_checkout).write_text(block.body, encoding="utf-8")


def test_ci_runs_the_blocks_that_set_up_environments() -> None:
    # bash joins lines that end in a backslash, and indents inside a subshell.
    ci = {line.strip() for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()}
    commands = [command for block in ALL if block.run_by_ci for command in commands_of(block)]
    assert {"make bench", "make test"} <= set(commands)
    assert [command for command in commands if command not in ci] == []


def test_no_block_escapes() -> None:
    fences = sum(document.read_text(encoding="utf-8").count("\n```") for document in DOCUMENTS)
    assert fences == 2 * len(ALL)
    assert {block.language for block in ALL} <= LANGUAGES
    assert [block.place for block in ALL if block.language == "toml" and block.file is None] == []
    assert any("inas-deploy compare" in block.body for block in ALL)


def test_links_between_documents_lead_somewhere() -> None:
    texts = [*DOCUMENTS, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    dead = [
        f"{document.name}: {link}"
        for document in texts
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
        if not (document.parent / link).exists()
    ]
    assert dead == []
