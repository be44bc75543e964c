"""Networks of a space as the files that a runtime loads, exported in other processes ahead of the measurement."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from search.onnx_exporters import OPSET
from search.spaces.arch import Arch
from search.spaces.export import export_arch
from search.spaces.registry import arch_from_json
from targets.errors import InvalidModel, KitError, UsageError
from targets.onnx_files import inspect_onnx
from targets.records import Artifact
from targets.tflite_files import tflite_artifact
from targets.worker import die_with_parent

Format = Literal["onnx", "tflite"]
_NICE = 10


@dataclass(frozen=True)
class CarrierFiles:
    """Where a run's networks lie, and what they are made for.

    Attributes:
        folder: Folder of the files.
        input_size: Height and width in pixels.
        format: Format of the files.
        opset: Operator set of ONNX files.
        seed: Seed of the weights.
    """

    folder: Path
    input_size: tuple[int, int]
    format: Format
    opset: int = OPSET
    seed: int = 0

    def path(self, arch: Arch) -> Path:
        """Where the file of an architecture lies, or will lie."""
        height, width = self.input_size
        opset = f"-opset{self.opset}" if self.format == "onnx" else ""
        return self.folder / f"{arch.space}-{arch.sha256()[:20]}-{height}x{width}{opset}-seed{self.seed}.{self.format}"

    def make(self, arch: Arch) -> None:
        """Export an architecture, unless its file is there; a file appears whole.

        Raises:
            KitError: As :func:`search.spaces.export.export_arch`.
        """
        path = self.path(arch)
        if not path.is_file():
            export_arch(arch, path, input_size=self.input_size, format=self.format, opset=self.opset, seed=self.seed)

    def artifact(self, arch: Arch) -> Artifact:
        """The artifact of an architecture whose file is there.

        Raises:
            InvalidModel: If the file is damaged.
            UsageError: If it is not there.
        """
        path, source = self.path(arch), arch.sha256()
        if not path.is_file():
            raise UsageError(f"there is no file {path}", "Export the architecture first.")
        if self.format == "tflite":
            return tflite_artifact(path, source_sha256=source, converter="litert-torch")
        info = inspect_onnx(path)
        return Artifact(
            path=str(path),
            format="onnx",
            sha256=info.sha256,
            source_sha256=source,
            inputs=info.inputs,
            converter="torch.onnx",
        )

    def discard(self, arch: Arch) -> None:
        """Remove the file of an architecture; a few hundred of them would fill a disk."""
        self.path(arch).unlink(missing_ok=True)


def format_for(formats: Sequence[str]) -> Format:
    """The first of a runtime's formats that is exported.

    Raises:
        UsageError: If there is none.
    """
    known: tuple[Format, ...] = get_args(Format)
    for format in known:
        if format in formats:
            return format
    raise UsageError(f"networks are exported as {' and '.join(known)}, not {', '.join(formats)}", "Take another one.")


class Exporter:
    """Exports in processes of their own; a context manager that ends them.

    Each process is as unimportant to the system as it can be made, imports torch once, and works on one network at a
    time. Where the device is this very machine, :meth:`paused` stops them while something is measured.

    Args:
        files: What is exported, and where to.
        workers: Number of processes.
        cores: Cores they are bound to, so that others are left to what is measured; ``None`` for all.
    """

    def __init__(self, files: CarrierFiles, workers: int = 1, cores: frozenset[int] | None = None) -> None:
        self.files = files
        self.cores = cores
        self.workers = workers
        self._processes: list[_Worker] = []
        self._waiting: list[Arch] = []
        self._failed: dict[str, KitError] = {}

    def __enter__(self) -> Self:
        """Start the processes."""
        self.files.folder.mkdir(parents=True, exist_ok=True)
        self._processes = [_Worker(self.files, self.cores) for _ in range(self.workers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; what they were working on is left unwritten."""
        for worker in self._processes:
            worker.end()
        self._processes.clear()

    def ahead(self, archs: Sequence[Arch]) -> None:
        """Replace what is waiting to be exported; what is there or being made is left out."""
        busy = {worker.arch.sha256() for worker in self._processes if worker.arch is not None}
        self._waiting = [a for a in archs if not self.files.path(a).is_file() and a.sha256() not in busy]
        self._give_out()

    def artifact(self, arch: Arch) -> Artifact:
        """The artifact of an architecture, waited for; it goes before those that are waiting.

        Raises:
            KitError: If it cannot be exported, as :func:`search.spaces.export.export_arch`.
        """
        key = arch.sha256()
        while not self.files.path(arch).is_file():
            if key in self._failed:
                raise self._failed.pop(key)
            if all(worker.arch is None or worker.arch.sha256() != key for worker in self._processes):
                self._waiting = [arch, *(other for other in self._waiting if other.sha256() != key)]
            self._give_out()
            self._collect()
        self._give_out()  # the next one is made while this one is used
        return self.files.artifact(arch)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the processes for a while."""
        for worker in self._processes:
            worker.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in self._processes:
                worker.signal(signal.SIGCONT)

    def _give_out(self) -> None:
        self._collect(wait_s=0.0)
        for worker in self._processes:
            if worker.arch is None and self._waiting:
                worker.start(self._waiting.pop(0))

    def _collect(self, wait_s: float = 0.2) -> None:
        for worker in self._processes:
            if worker.arch is not None:
                done = worker.arch
                try:
                    worker.finish(wait_s)
                except KitError as error:
                    self._failed[done.sha256()] = error


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, files: CarrierFiles, cores: frozenset[int] | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_export_all, args=(files, other, os.getpid(), cores), daemon=True
        )
        self._process.start()
        other.close()
        self.arch: Arch | None = None

    def start(self, arch: Arch) -> None:
        self.arch = arch
        try:
            self._pipe.send_bytes(arch.to_json().encode())
        except OSError as error:
            raise _ended(arch) from error

    def finish(self, wait_s: float) -> None:
        """Take the answer, if there is one within a time."""
        arch = self.arch
        if arch is None or not self._pipe.poll(wait_s):
            return
        self.arch = None
        try:
            problem = self._pipe.recv_bytes().decode()
        except (EOFError, OSError) as error:
            raise _ended(arch) from error
        if problem:
            raise InvalidModel(problem)

    def signal(self, number: int) -> None:
        if self._process.pid is not None and self._process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def end(self) -> None:
        self._pipe.close()
        self.signal(signal.SIGKILL)  # files appear whole, so there is nothing to finish
        self._process.join()


def _ended(arch: Arch) -> KitError:
    return InvalidModel(
        f"the process that exported {arch.space}-{arch.sha256()[:12]} ended", "There may be too little memory."
    )


def _export_all(files: CarrierFiles, pipe: Connection, parent_pid: int, cores: frozenset[int] | None) -> None:
    """What a process does until its pipe is closed: take JSON of an architecture, answer "" or what went wrong."""
    die_with_parent(parent_pid)  # a paused one would else stay for ever
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    os.nice(_NICE)
    if cores is not None:
        os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            text = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            files.make(arch_from_json(text))
            problem = ""
        except KitError as error:
            problem = str(error)
        pipe.send_bytes(problem.encode())
