"""TensorRT's Python API: parse an ONNX file and build an engine, saying which node stands in the way.

One code for ``tensorrt`` (8.2 to 11) and ``tensorrt_rtx``, which builds ahead of time for a compute capability and
needs no GPU: the module is passed in, and what only one of them has is looked for. Native code may end the process;
:mod:`targets.tensorrt.check` runs this in one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from targets.errors import UsageError, printable
from targets.frozen import Frozen
from targets.profiles.join import ModuleIndex
from targets.records import Precision

Stage = Literal["parse", "build"]
MAX_FAILING = 50
"""Most failing nodes that are told."""

_QUOTED = re.compile(r"'([^']{1,512})'")
_FOREIGN = re.compile(r"ForeignNode\[(.{1,1024}?)\]")


class FailingNode(Frozen):
    """A node of the model that TensorRT cannot take.

    Attributes:
        name: Node name, printable; its position in the file where it has none.
        op_type: ONNX operator.
        module: Module path where the file tells one, else ``None``.
        reason: TensorRT's own words, printable.
    """

    name: str
    op_type: str
    module: str | None
    reason: str


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        path: ONNX file.
        precision: Numeric type; where networks are strongly typed the file has it already.
        compute_capability: Such as ``SM86``; ``None`` builds for the GPU that is there.
        workspace_mib: Most scratch memory of a kernel.
        timing_cache: Kernel timings of an earlier build; empty starts them, ``None`` keeps none.
    """

    path: Path
    precision: Precision = Precision.FP32
    compute_capability: str | None = None
    workspace_mib: int = 1024
    timing_cache: bytes | None = None


@dataclass
class BuildOutcome:
    """What came of it.

    Attributes:
        parses: Whether the parser took every node.
        plan: The engine; ``None`` where it was not built.
        layers: Layers of the network before fusion.
        failing: Nodes that stand in the way, in the order told, bounded.
        messages: Errors that name no node, printable, bounded.
        timing_cache: Kernel timings to keep for the next build; empty where the version has none.
    """

    parses: bool = False
    plan: bytes | None = None
    layers: int = 0
    failing: list[FailingNode] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    timing_cache: bytes = b""


def build_engine(trt: Any, request: BuildRequest, *, on_stage: Callable[[Stage], None] | None = None) -> BuildOutcome:
    """Parse and build.

    Args:
        trt: The ``tensorrt`` or ``tensorrt_rtx`` module.
        request: What to build.
        on_stage: Told before each stage, for whoever survives a crash of this process.

    Raises:
        UsageError: If the module cannot do what is asked.
        InvalidModel: If the file cannot be read as ONNX.
    """
    index = ModuleIndex.from_onnx(request.path)
    logger, errors = _logger(trt)
    builder = trt.Builder(logger)
    outcome = BuildOutcome()
    (on_stage or _ignore)("parse")
    _collect(trt, builder, logger, request.path, index, outcome)
    network = _network(trt, builder)
    parser = trt.OnnxParser(network, logger)  # fresh ones: those that were only asked are used up
    outcome.parses = bool(parser.parse_from_file(str(request.path)))
    outcome.layers = int(network.num_layers)
    if not outcome.parses:
        _add_errors(parser, index, outcome)
        outcome.messages.extend(errors[:5] if not outcome.failing else [])
        return outcome
    outcome.failing.clear()  # the parser decides: the question beforehand may be too strict
    errors.clear()
    (on_stage or _ignore)("build")
    config = _config(trt, builder, request)
    plan = builder.build_serialized_network(network, config)
    outcome.plan = None if plan is None else bytes(plan)
    if plan is None:
        _name_build_errors(errors, index, outcome)
    cache = (
        config.get_timing_cache() if request.timing_cache is not None and hasattr(config, "get_timing_cache") else None
    )
    outcome.timing_cache = bytes(cache.serialize()) if cache is not None else b""
    return outcome


def capabilities_of(trt: Any) -> tuple[str, ...]:
    """Compute capabilities that the module builds for without a GPU, such as ``SM86``."""
    names = getattr(trt, "ComputeCapability", None)
    return tuple(name for name in dir(names) if re.fullmatch(r"SM\d{2,3}", name))


def _ignore(stage: Stage) -> None:
    pass


def _logger(trt: Any) -> tuple[Any, list[str]]:
    """A logger that keeps errors and prints nothing."""
    errors: list[str] = []

    class Quiet(trt.ILogger):  # type: ignore[misc]  # the module is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR) and len(errors) < 100:
                errors.append(printable(message, 400))

    return Quiet(), errors


def _network(trt: Any, builder: Any) -> Any:
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return builder.create_network(0 if explicit is None else 1 << int(explicit))


def _config(trt: Any, builder: Any, request: BuildRequest) -> Any:
    config = builder.create_builder_config()
    if request.compute_capability is not None:
        known = capabilities_of(trt)
        if request.compute_capability not in known:
            raise UsageError(
                f"{trt.__name__} {trt.__version__} does not build for {request.compute_capability}",
                f"Take one of: {', '.join(known)}." if known else "Leave the compute capability out: it needs the GPU.",
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, request.compute_capability), 0)
    flags = trt.BuilderFlag
    if hasattr(flags, "TF32"):
        config.clear_flag(flags.TF32)
    for precision, name in ((Precision.FP16, "FP16"), (Precision.INT8, "INT8")):
        if request.precision is precision and hasattr(flags, name):
            config.set_flag(getattr(flags, name))
    if hasattr(trt, "MemoryPoolType"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mib << 20)
    else:
        config.max_workspace_size = request.workspace_mib << 20
    if request.timing_cache is not None and hasattr(config, "create_timing_cache"):
        config.set_timing_cache(config.create_timing_cache(request.timing_cache), False)
    return config


def _collect(trt: Any, builder: Any, logger: Any, path: Path, index: ModuleIndex, outcome: BuildOutcome) -> None:
    """Ask for all failing nodes at once: parsing ends at the first."""
    network = _network(trt, builder)  # has to outlive the parser, which does not hold it
    parser = trt.OnnxParser(network, logger)
    ask = getattr(parser, "supports_model_v2", None)
    if ask is not None and not ask(path.read_bytes(), str(path)):
        _add_errors(parser, index, outcome)


def _add_errors(parser: Any, index: ModuleIndex, outcome: BuildOutcome) -> None:
    for position in range(parser.num_errors):
        error = parser.get_error(position)
        name = printable(error.node_name() if hasattr(error, "node_name") else "", 200)
        reason = printable(str(error.desc()).strip(), 300)
        if name or error.node() >= 0:
            node = index.nodes.get(name)
            operator = error.node_operator() if hasattr(error, "node_operator") else ""
            _add(outcome, name or f"node {error.node()}", operator or (node.op_type if node else ""), index, reason)
        elif reason not in outcome.messages and len(outcome.messages) < MAX_FAILING:
            outcome.messages.append(reason)


def _add(outcome: BuildOutcome, name: str, operator: str, index: ModuleIndex, reason: str) -> None:
    if len(outcome.failing) < MAX_FAILING and all(node.name != name for node in outcome.failing):
        node = index.nodes.get(name)
        module = node.module if node is not None and not node.stands_alone else None
        outcome.failing.append(FailingNode(name=name, op_type=printable(operator), module=module, reason=reason))


def _name_build_errors(errors: list[str], index: ModuleIndex, outcome: BuildOutcome) -> None:
    """Nodes that the builder's messages name; what names none is kept as it is."""
    for message in errors:
        names = [name for name in _mentioned(message) if name in index.nodes]
        for name in names:
            _add(outcome, name, index.nodes[name].op_type, index, message)
        if not names and message not in outcome.messages and len(outcome.messages) < MAX_FAILING:
            outcome.messages.append(message)


def _mentioned(message: str) -> Iterator[str]:
    yield from _QUOTED.findall(message)
    for inside in _FOREIGN.findall(message):
        yield from inside.split("...")
