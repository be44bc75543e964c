"""The kit's own networks, which are exported when they are asked for: architectures and handcrafted rivals.

Names: those of ``search.spaces.registry`` (``csnet-x1``, ``inas:smallest``, ``bisenetv2``, ...), a ``.json`` file that
holds an architecture, and ``rival:<name>`` in a source checkout.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import inas_deploy
import search
from inas_deploy.model_cache import cache_folder, code_sha256, kept_file
from search.spaces.arch import Arch
from search.spaces.registry import arch_of_file, find_arch
from targets.errors import UsageError

Format = Literal["onnx", "tflite"]
Size = tuple[int, int]
RIVAL = "rival:"
SEED = 0
"""Bytes of an architecture file; the largest network needs a few thousand."""


class Network(Protocol):
    """What can be exported."""

    @property
    def file_stem(self) -> str:
        """Start of the file's name in the cache."""

    @property
    def sha256(self) -> str:
        """Hash of all that decides the network, but for the kit's code."""

    @property
    def code(self) -> tuple[Path, ...]:
        """Folders of the code that makes it."""

    def check_size(self, size: Size) -> None:
        """Refuse an input size (height, width) it cannot take, by a ``UsageError`` that says why."""

    def export(self, path: Path, size: Size, format: Format, opset: int | None) -> None:
        """Write it with seeded weights; ``MissingExtra`` where an exporter is not installed."""


@dataclass(frozen=True)
class ArchNetwork:
    """A network made from an architecture.

    Attributes:
        arch: The architecture.
    """

    arch: Arch

    @property
    def file_stem(self) -> str:
        """Space and the start of the hash."""
        return f"{self.arch.space}-{self.sha256[:12]}"

    @property
    def sha256(self) -> str:
        """Hash of the architecture."""
        return self.arch.sha256()

    @property
    def code(self) -> tuple[Path, ...]:
        """The package of the spaces."""
        return (_folder_of(search),)

    def check_size(self, size: Size) -> None:
        """See ``Network``."""
        self.arch.check_request(size)

    def export(self, path: Path, size: Size, format: Format, opset: int | None) -> None:
        """See ``Network``."""
        from search.onnx_exporters import OPSET
        from search.spaces.export import export_arch

        export_arch(self.arch, path, input_size=size, format=format, opset=opset or OPSET, seed=SEED)


@dataclass(frozen=True)
class RivalNetwork:
    """A handcrafted network of the source checkout.

    Attributes:
        name: Name among the rivals.
        rivals: The package ``benchmarks.rivals``.
    """

    name: str
    rivals: Any

    @property
    def file_stem(self) -> str:
        """The name."""
        return f"rival-{self.name}"

    @property
    def sha256(self) -> str:
        """Hash of the name."""
        return hashlib.sha256(f"{RIVAL}{self.name}".encode()).hexdigest()

    @property
    def code(self) -> tuple[Path, ...]:
        """The rivals, and the package that exports them."""
        return (_folder_of(search), _folder_of(self.rivals))

    def check_size(self, size: Size) -> None:
        """See ``Network``."""
        self.rivals.check_size(self.name, size)

    def export(self, path: Path, size: Size, format: Format, opset: int | None) -> None:
        """See ``Network``."""
        self.rivals.export_rival(self.name, path, input_size=size, format=format, opset=opset, seed=SEED)


def find_network(text: str) -> tuple[str, Network]:
    """The network of a name or of a ``.json`` file, with the name to show.

    Raises:
        UsageError: If there is none; close names are listed.
    """
    if Path(text).suffix.lower() == ".json":
        return Path(text).name, ArchNetwork(arch_of_file(text))
    name = text.strip().lower()
    if name.startswith(RIVAL):
        rivals = _rivals()
        rivals.find_rival(name.removeprefix(RIVAL))
        return name, RivalNetwork(name.removeprefix(RIVAL), rivals)
    try:
        return name, ArchNetwork(find_arch(name))
    except UsageError as error:
        # Only now: a folder or file that happens to have a network's name does not hide it.
        if "/" in text or os.path.exists(text):  # noqa: PTH110  # unlike pathlib's, it takes a name no file can have
            raise UsageError(
                f"cannot tell what {text} is", "Give an .onnx, .tflite or .json file, or a network name."
            ) from error
        raise


def exported(
    network: Network, size: Size, format: Format, cache_dir: Path | None = None, opset: int | None = None
) -> Path:
    """The network as a file, made once and then kept.

    Args:
        network: The network.
        size: Height and width of the input.
        format: Format of the file.
        cache_dir: Where it is kept, instead of the user's cache folder.
        opset: Operator set of an ONNX file, instead of the kit's own.

    Raises:
        UsageError: If the cache folder cannot be made.
        MissingExtra: If it has to be made and an exporter is not installed.
        InvalidModel: If the file made gives other numbers than torch.
    """
    key = f"{code_sha256(network.code)} {network.sha256} {size} {SEED} {exporter(format, opset)}"
    name = f"{network.file_stem}-{size[0]}x{size[1]}.{format}"
    return kept_file(name, key, cache_folder(cache_dir), lambda path: network.export(path, size, format, opset))


def exporter(format: Format, opset: int | None = None) -> str:
    """Name and versions of what writes a format."""
    from search import export_torch

    if format == "tflite":
        return export_torch.tflite_exporter()
    return export_torch.onnx_exporter(opset) if opset else export_torch.onnx_exporter()


def _rivals() -> Any:
    """``benchmarks.rivals``, but never a stranger's package of that name."""
    home = Path(inas_deploy.__file__).resolve().parent.parent / "benchmarks"
    if not (home / "rivals" / "__init__.py").is_file():
        raise UsageError(
            "rivals do not come with the installed kit",
            "Take the source checkout and start from there, or name another network.",
        )
    place = inas_deploy.place_of("benchmarks")
    if place != home:
        what = f"{place} shadows the kit's own package 'benchmarks'" if place else f"{home} is not on Python's path"
        raise UsageError(what, f"Start from {home.parent}.")
    return importlib.import_module("benchmarks.rivals")


def _folder_of(package: Any) -> Path:
    return Path(package.__file__).parent
