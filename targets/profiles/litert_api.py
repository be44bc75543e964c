"""The part of LiteRT's C interface that profiling needs, through ctypes.

The wheel ships no header, and the public header does not match the library: the layout of an event was measured on
version 2.3.0 and is used with that version only. What comes back is checked before it is believed.
"""

from __future__ import annotations

import ctypes as c
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from targets.errors import InvalidModel, MissingExtra, UnknownLayout
from targets.extras import require, version_of
from targets.profiles.litert_events import EVENT_BYTES, Event, decode_events
from targets.runtimes.native_output import captured_stderr

#: The version whose event layout is known.
KNOWN_VERSION = "2.3.0"

KernelMode = Literal["delegate", "builtin"]

_ACCELERATOR_CPU = 1
_LOCK_READ, _LOCK_WRITE = 0, 1
_MAX_RANK = 8
_MAX_EVENTS = 1_000_000
# LiteRT's own codes, which are not those of the file's schema.
_ELEMENT_CODES = {
    "float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float16": 10, "float64": 11,
    "uint32": 16, "uint16": 17, "uint64": 13,
}  # fmt: skip


class _Layout(c.Structure):
    _fields_ = (("bits", c.c_uint32), ("dimensions", c.c_int32 * _MAX_RANK), ("strides", c.c_uint32 * _MAX_RANK))


class _TensorType(c.Structure):
    _fields_ = (("element", c.c_int), ("layout", _Layout))


_NoFree = c.CFUNCTYPE(None, c.c_void_p)
# Kept for the life of the process: the library calls it when it drops an option.
_no_free = _NoFree(lambda pointer: None)

_H, _HP, _N = c.c_void_p, c.POINTER(c.c_void_p), c.c_size_t
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "CreateEnvironment": (c.c_int, _H, _HP),
    "CreateModelFromFile": (_H, c.c_char_p, _HP),
    "CreateOptions": (_HP,),
    "SetOptionsHardwareAccelerators": (_H, c.c_int),
    "CreateOpaqueOptions": (c.c_char_p, _H, _NoFree, _HP),
    "AddOpaqueOptions": (_H, _H),
    "CreateCompiledModel": (_H, _H, _H, _HP),
    "GetModelSignature": (_H, _N, _HP),
    "GetNumSignatureInputs": (_H, c.POINTER(_N)),
    "GetSignatureInputName": (_H, _N, c.POINTER(c.c_char_p)),
    "GetNumSignatureOutputs": (_H, c.POINTER(_N)),
    "GetSignatureOutputName": (_H, _N, c.POINTER(c.c_char_p)),
    "GetCompiledModelInputBufferRequirements": (_H, _N, _N, _HP),
    "GetCompiledModelOutputBufferRequirements": (_H, _N, _N, _HP),
    "GetCompiledModelInputTensorLayout": (_H, _N, _N, c.POINTER(_Layout)),
    "GetCompiledModelOutputTensorLayouts": (_H, _N, _N, c.POINTER(_Layout), c.c_bool),
    "CreateManagedTensorBufferFromRequirements": (_H, c.POINTER(_TensorType), _H, _HP),
    "GetTensorBufferSize": (_H, c.POINTER(_N)),
    "LockTensorBuffer": (_H, _HP, c.c_int),
    "UnlockTensorBuffer": (_H,),
    "RunCompiledModel": (_H, _N, _N, _HP, _N, _HP),
    "CompiledModelGetProfiler": (_H, _HP),
    "StartProfiler": (_H,),
    "StopProfiler": (_H,),
    "ResetProfiler": (_H,),
    "GetNumProfilerEvents": (_H, c.POINTER(c.c_int)),
    "GetProfilerEvents": (_H, c.c_int, _H),
}
_DESTROYERS = ("Environment", "Model", "Options", "CompiledModel", "TensorBuffer")


def check_version() -> None:
    """Refuse anything but the one version whose events can be read, before a model is loaded for it.

    Raises:
        MissingExtra: If ai-edge-litert is not installed (``tflite-runtime`` has no profiler to ask).
        UnknownLayout: If another version is installed.
    """
    version = version_of("ai-edge-litert")
    if version == KNOWN_VERSION:
        return
    what = (
        f"per-op profiles of tflite need ai-edge-litert {KNOWN_VERSION}: the layout of its events is known for no "
        f"other version, and {version or 'none'} is installed"
    )
    fix = f"Install it with: pip install 'ai-edge-litert=={KNOWN_VERSION}', or measure without a profile: --no-per-op."
    raise MissingExtra(what, fix) if version is None else UnknownLayout(what, fix)


@cache
def _library() -> c.CDLL:
    """Load the library and declare every call, so that ctypes converts no pointer to a 32-bit number."""
    check_version()
    module, version = require("ai_edge_litert", "tflite"), KNOWN_VERSION
    folder = Path(next(iter(module.__path__)))
    path = next((path for path in map(folder.joinpath, ("libLiteRt.so", "libLiteRt.dylib")) if path.exists()), None)
    if path is None:
        raise UnknownLayout(f"ai-edge-litert {version} has no libLiteRt library in {folder}", "Reinstall the package.")
    library = c.CDLL(str(path))
    for name, arguments in _PROTOTYPES.items():
        function = getattr(library, f"LiteRt{name}")
        function.argtypes, function.restype = arguments, c.c_int
    for name in _DESTROYERS:
        function = getattr(library, f"LiteRtDestroy{name}")
        function.argtypes, function.restype = (_H,), None
    return library


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), f"LiteRt{name}")(*arguments)
    if status:
        raise UnknownLayout(
            f"LiteRt{name} of ai-edge-litert {KNOWN_VERSION} failed with status {status}",
            "Check that the model runs with `bench`, then profile again.",
        )


class Port(NamedTuple):
    """One input or output of a model.

    Attributes:
        names: Names it may go by: the signature's, the tensor's.
        shape: Dimensions.
        dtype: numpy type name.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


class LiteRtModel:
    """A compiled model with its buffers and its profiler; use it in a ``with`` block.

    Args:
        path: A ``.tflite`` file that passed :func:`targets.tflite_files.inspect_tflite`.
        inputs: Inputs of the model, in any order.
        outputs: Outputs, in any order.
        threads: Threads of the CPU kernels.
        kernel_mode: ``delegate`` for XNNPACK, ``builtin`` for TFLite's own kernels.

    Raises:
        MissingExtra: If ai-edge-litert is not installed.
        UnknownLayout: If another version is installed, or a call fails.
        InvalidModel: If an element type has no LiteRT twin, or a name of the signature is unknown.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        *,
        threads: int,
        kernel_mode: KernelMode = "delegate",
    ) -> None:
        _library()
        self._stack = ExitStack()
        self._kept: list[Any] = []
        with captured_stderr(), ExitStack() as stack:
            environment = self._create(stack, "Environment", 0, None)
            model = self._create(stack, "Model", environment, str(path).encode(), maker="CreateModelFromFile")
            options = self._options(stack, threads, kernel_mode)
            self._compiled = self._create(stack, "CompiledModel", environment, model, options)
            signature = _H()
            _call("GetModelSignature", model, 0, c.byref(signature))
            self._inputs = _ordered(signature, "Input", inputs)
            self._outputs = _ordered(signature, "Output", outputs)
            input_layouts, output_layouts = self._layouts()
            self._in = self._buffers(stack, environment, "Input", self._inputs, input_layouts)
            self._out = self._buffers(stack, environment, "Output", self._outputs, output_layouts)
            self._profiler = _H()
            _call("CompiledModelGetProfiler", self._compiled, c.byref(self._profiler))
            self._run = _library().LiteRtRunCompiledModel
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with captured_stderr():
            self._stack.close()

    def run(self) -> None:
        """Run one inference.

        Raises:
            UnknownLayout: If the library reports a failure.
        """
        status = self._run(self._compiled, 0, len(self._inputs), self._in, len(self._outputs), self._out)
        if status:
            raise UnknownLayout(f"LiteRtRunCompiledModel failed with status {status}", "Run `bench` on the model.")

    def profiled_run(self) -> tuple[float, tuple[Event, ...]]:
        """Run one inference with the profiler on.

        Returns:
            Wall time in microseconds, and the checked events in the order they were recorded.

        Raises:
            UnknownLayout: If a call fails or an event makes no sense.
        """
        _call("ResetProfiler", self._profiler)
        _call("StartProfiler", self._profiler)
        begin = time.perf_counter_ns()
        self.run()
        wall_us = (time.perf_counter_ns() - begin) / 1e3
        _call("StopProfiler", self._profiler)
        count = c.c_int()
        _call("GetNumProfilerEvents", self._profiler, c.byref(count))
        if not 0 < count.value <= _MAX_EVENTS:
            raise UnknownLayout(f"LiteRT reports {count.value} profiler events for one inference", "Report the model.")
        # Twice the room, filled with a pattern: a larger event would show before it could do harm.
        raw = np.full(2 * count.value * EVENT_BYTES, 0xA5, np.uint8)
        _call("GetProfilerEvents", self._profiler, count.value, raw.ctypes.data)
        return wall_us, decode_events(raw, count.value, wall_us)

    def feed(self, tensors: dict[str, NDArray[Any]]) -> None:
        """Copy inputs into the bound buffers.

        Args:
            tensors: Arrays by any of the names of their port.

        Raises:
            InvalidModel: If an array is missing, or has another size than its buffer.
        """
        for port, buffer in zip(self._inputs, self._in, strict=True):
            array = next((tensors[name] for name in port.names if name in tensors), None)
            if array is None or array.shape != port.shape or array.dtype != np.dtype(port.dtype):
                raise InvalidModel(f"input {port.names[0]!r} needs a {port.dtype} array of shape {list(port.shape)}")
            data = np.ascontiguousarray(array)
            self._copy(buffer, data, _LOCK_WRITE)

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Outputs of the last inference, copied, by the last name of their port."""
        arrays = {}
        for port, buffer in zip(self._outputs, self._out, strict=True):
            array = np.empty(port.shape, port.dtype)
            self._copy(buffer, array, _LOCK_READ)
            arrays[port.names[-1]] = array
        return arrays

    def _copy(self, buffer: Any, array: NDArray[Any], mode: int) -> None:
        size, address = _N(), _H()
        _call("GetTensorBufferSize", buffer, c.byref(size))
        if size.value < array.nbytes:
            raise UnknownLayout(f"a LiteRT buffer holds {size.value} bytes where the tensor has {array.nbytes}")
        _call("LockTensorBuffer", buffer, c.byref(address), mode)
        try:
            to, of = (address, array.ctypes.data) if mode == _LOCK_WRITE else (array.ctypes.data, address)
            c.memmove(to, of, array.nbytes)
        finally:
            _call("UnlockTensorBuffer", buffer)

    def _create(self, stack: ExitStack, kind: str, *arguments: Any, maker: str = "") -> c.c_void_p:
        handle = _H()
        _call(maker or f"Create{kind}", *arguments, c.byref(handle))
        stack.callback(getattr(_library(), f"LiteRtDestroy{kind}"), handle)
        return handle

    def _options(self, stack: ExitStack, threads: int, kernel_mode: KernelMode) -> c.c_void_p:
        options = self._create(stack, "Options")
        _call("SetOptionsHardwareAccelerators", options, _ACCELERATOR_CPU)
        groups = {
            "runtime_options_string": "enable_profiling = true\n",
            "xnnpack": f'kernel_mode = "{kernel_mode}"\nnum_threads = {threads}\n',
        }
        for name, toml in groups.items():
            text, opaque = c.create_string_buffer(toml.encode()), _H()
            self._kept.append(text)  # the library keeps the pointer, not a copy
            _call("CreateOpaqueOptions", name.encode(), c.cast(text, _H), _no_free, c.byref(opaque))
            _call("AddOpaqueOptions", options, opaque)  # options own it from here on
        return options

    def _layouts(self) -> tuple[list[_Layout], list[_Layout]]:
        inputs = [_Layout() for _ in self._inputs]
        for index, layout in enumerate(inputs):
            _call("GetCompiledModelInputTensorLayout", self._compiled, 0, index, c.byref(layout))
        outputs = (_Layout * len(self._outputs))()
        _call("GetCompiledModelOutputTensorLayouts", self._compiled, 0, len(self._outputs), outputs, False)
        return inputs, list(outputs)

    def _buffers(
        self, stack: ExitStack, environment: c.c_void_p, role: str, ports: Sequence[Port], layouts: Sequence[_Layout]
    ) -> Any:
        handles = (c.c_void_p * len(ports))()
        for index, (port, layout) in enumerate(zip(ports, layouts, strict=True)):
            shape = tuple(layout.dimensions[axis] for axis in range(min(layout.bits & 0x7F, _MAX_RANK)))
            if shape != port.shape:
                raise UnknownLayout(
                    f"LiteRT gives {role.lower()} {port.names[0]!r} the shape {shape}, not {port.shape}"
                )
            if port.dtype not in _ELEMENT_CODES:
                raise InvalidModel(f"{role.lower()} {port.names[0]!r} has type {port.dtype}, which cannot be profiled")
            requirements, kind = _H(), _TensorType(_ELEMENT_CODES[port.dtype], layout)
            name = f"GetCompiledModel{role}BufferRequirements"
            _call(name, self._compiled, 0, index, c.byref(requirements))
            handle = self._create(
                stack, "TensorBuffer", environment, c.byref(kind), requirements,
                maker="CreateManagedTensorBufferFromRequirements",
            )  # fmt: skip
            handles[index] = handle.value
        return handles


def _ordered(signature: c.c_void_p, role: str, ports: Sequence[Port]) -> list[Port]:
    """Ports in the order of the signature, which need not be the order of the graph."""
    count = _N()
    _call(f"GetNumSignature{role}s", signature, c.byref(count))
    if count.value != len(ports):
        raise InvalidModel(f"the signature has {count.value} {role.lower()}s, the graph {len(ports)}")
    by_name = {name: port for port in ports for name in port.names}
    ordered = []
    for index in range(count.value):
        text = c.c_char_p()
        _call(f"GetSignature{role}Name", signature, index, c.byref(text))
        name = (text.value or b"").decode("utf-8", "replace")
        if name not in by_name:
            raise InvalidModel(f"the signature names {role.lower()} {name!r}, which the graph does not have")
        ordered.append(by_name[name])
    return ordered
