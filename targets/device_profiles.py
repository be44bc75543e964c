"""Built-in profiles of the papers' devices: what runs there, how, and what the chip can do at most.

``profile = "jetson-nano"`` in ``devices.toml`` fills in whatever the entry itself leaves out; the simulator computes
with the peaks. Peaks are products of published figures (units, clock, operations a cycle), named in ``sources``: no
network reaches them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from targets.records import Accelerator, Frozen, Precision


class ComputeUnit(Frozen):
    """One part of a chip that can run a network.

    Attributes:
        accelerator: What the inventory calls it.
        name: The part's own name.
        peak_gflops: Peak by numeric type, 10^9 operations a second (a multiply-add is two); of one core where
            ``cores`` is given. A type that is not listed runs at the speed of ``fp32``.
        cores: Cores that threads are spread over; 1 for a unit that takes no threads.
        bandwidth_gb_s: Memory bandwidth, 10^9 bytes a second.
        launch_us: Cost of starting one operation, microseconds; an assumption of the simulator.
        max_clock_mhz: Highest clock of the first core or of the unit.
    """

    accelerator: Accelerator
    name: str
    peak_gflops: dict[Precision, Annotated[float, Field(gt=0)]]
    cores: Annotated[int, Field(ge=1)] = 1
    bandwidth_gb_s: Annotated[float, Field(gt=0)]
    launch_us: Annotated[float, Field(gt=0)]
    max_clock_mhz: Annotated[float, Field(gt=0)]


class DeviceProfile(Frozen):
    """What is known of a kind of device before it is opened.

    Attributes:
        name: What ``profile`` in the inventory takes.
        title: The device for a person.
        soc: Its chip.
        transport: How it is usually reached.
        tags: Groups it belongs to.
        runtime: Runtime that is best served there.
        runtime_version: Version that decides flags and export; ``None`` where the device may have any.
        precision: Numeric type to begin with.
        precisions: Numeric types that the runtime computes in there.
        accelerator: Unit to begin with.
        opset: ONNX opset that its runtime reads; ``None`` for the kit's own.
        python: Python it ships with, where that matters.
        units: Parts that can run a network, the usual one first.
        marks: Pieces of what such a device says of itself: its own name, its graphics card's or its processor's.
        notes: What a person must know, one sentence each.
        sources: Where the figures come from.
    """

    name: str
    title: str
    soc: str
    transport: str
    tags: tuple[str, ...]
    runtime: str
    runtime_version: str | None = None
    precision: Precision = Precision.FP32
    precisions: tuple[Precision, ...]
    accelerator: Accelerator
    opset: int | None = None
    python: str | None = None
    units: tuple[ComputeUnit, ...]
    marks: tuple[str, ...]
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...]

    def defaults(self) -> dict[str, Any]:
        """Inventory keys and values that an entry with this profile need not write."""
        known = {
            "tags": list(self.tags),
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "precision": self.precision.value,
            "accelerator": self.accelerator,
            "opset": self.opset,
        }
        return {key: value for key, value in known.items() if value is not None}

    def unit(self, accelerator: Accelerator | None) -> ComputeUnit | None:
        """The part of that kind, the usual one for ``None``; ``None`` where there is none."""
        wanted = accelerator or self.accelerator
        return next((unit for unit in self.units if unit.accelerator == wanted), None)


_TITAN_XP = DeviceProfile(
    name="titan-xp",
    title="NVIDIA Titan Xp",
    soc="NVIDIA GP102 (Pascal, compute capability 6.1)",
    transport="ssh",
    tags=("titan", "nvidia"),
    runtime="tensorrt",
    runtime_version="8.6",
    precisions=(Precision.FP32, Precision.INT8),
    accelerator="gpu",
    opset=17,
    units=(
        ComputeUnit(
            accelerator="gpu",
            name="GP102",
            peak_gflops={Precision.FP32: 12_150, Precision.FP16: 190, Precision.INT8: 48_600},
            bandwidth_gb_s=547.7,
            launch_us=5.0,
            max_clock_mhz=1582,
        ),
    ),
    marks=("TITAN Xp",),
    notes=(
        "Pascal left TensorRT after version 8: keep 8.x on the machine.",
        "Half precision runs at 1/64 of the single rate, so fp16 gains nothing; int8 has its own instructions.",
    ),
    sources=(
        "NVIDIA's product page: 3840 CUDA cores, 1582 MHz boost, 547.7 GB/s; a core does one multiply-add a cycle",
        "CUDA programming guide, arithmetic throughput of compute capability 6.1: half 1/64, 8-bit dot product 4 times",
    ),
)

_JETSON_NANO = DeviceProfile(
    name="jetson-nano",
    title="NVIDIA Jetson Nano",
    soc="NVIDIA Tegra X1 (Maxwell, compute capability 5.3)",
    transport="ssh",
    tags=("jetson", "nvidia"),
    runtime="tensorrt",
    runtime_version="8.2",
    precision=Precision.FP16,
    precisions=(Precision.FP32, Precision.FP16),
    accelerator="gpu",
    opset=13,
    python="3.6",
    units=(
        ComputeUnit(
            accelerator="gpu",
            name="GM20B",
            peak_gflops={Precision.FP32: 235.8, Precision.FP16: 471.6},
            bandwidth_gb_s=25.6,
            launch_us=15.0,
            max_clock_mhz=921,
        ),
        ComputeUnit(
            accelerator="cpu",
            name="Cortex-A57",
            peak_gflops={Precision.FP32: 11.4},
            cores=4,
            bandwidth_gb_s=25.6,
            launch_us=3.0,
            max_clock_mhz=1430,
        ),
    ),
    marks=("Jetson Nano",),
    notes=(
        "Its last JetPack (4.6) has Python 3.6 and TensorRT 8.2, which reads ONNX up to opset 13.",
        "It has no int8 instructions.",
    ),
    sources=(
        "Jetson Nano module data sheet: 128 Maxwell cores at 921 MHz, 4 Cortex-A57 at 1.43 GHz, 64-bit LPDDR4 with "
        "25.6 GB/s",
        "Arm Cortex-A57: one 128-bit multiply-add a cycle",
    ),
)

_INTEL_CORE = DeviceProfile(
    name="intel-core",
    title="Intel Core CPU",
    soc="Intel Core i7-8700K, standing for a desktop Core: the papers name no model",
    transport="ssh",
    tags=("intel",),
    runtime="openvino",
    precisions=(Precision.FP32, Precision.INT8),
    accelerator="cpu",
    units=(
        ComputeUnit(
            accelerator="cpu",
            name="Coffee Lake",
            peak_gflops={Precision.FP32: 118.4, Precision.INT8: 236.8},
            cores=6,
            bandwidth_gb_s=41.6,
            launch_us=1.0,
            max_clock_mhz=4700,
        ),
    ),
    marks=("Intel(R) Core(TM)",),
    notes=("bf16 needs AVX512-BF16 or AMX, which desktop Core CPUs lack; OpenVINO says what the CPU has.",),
    sources=(
        "Intel's product page of the i7-8700K: 6 cores, 3.7 GHz base clock, 41.6 GB/s",
        "AVX2: two multiply-adds of eight floats a cycle; 8-bit without VNNI takes three instructions: about twice",
    ),
)

_NOVA6_SE = DeviceProfile(
    name="nova6-se",
    title="Huawei nova 6 SE",
    soc="HiSilicon Kirin 810",
    transport="adb",
    tags=("android", "huawei"),
    runtime="tflite",
    precisions=(Precision.FP32, Precision.FP16, Precision.INT8),
    accelerator="cpu",
    units=(
        ComputeUnit(
            accelerator="cpu",
            name="Cortex-A76",
            peak_gflops={Precision.FP32: 36.3, Precision.FP16: 72.6, Precision.INT8: 145.3},
            cores=2,
            bandwidth_gb_s=34.1,
            launch_us=2.0,
            max_clock_mhz=2270,
        ),
        ComputeUnit(
            accelerator="gpu",
            name="Mali-G52 MP6",
            peak_gflops={Precision.FP32: 236.2, Precision.FP16: 472.3},
            bandwidth_gb_s=34.1,
            launch_us=40.0,
            max_clock_mhz=820,
        ),
    ),
    marks=("JNY-",),
    notes=(
        "The Da Vinci NPU is reached through NNAPI or HiAI only; no public figure of its peak is known to the kit.",
        "Two fast cores: more than two threads run on the slow ones too.",
    ),
    sources=(
        "HiSilicon Kirin 810: 2 Cortex-A76 at 2.27 GHz, 6 Cortex-A55 at 1.88 GHz, Mali-G52 MP6 at 820 MHz",
        "WikiChip, Kirin 810: LPDDR4X-4266 in four 16-bit channels",
        "Arm Cortex-A76: two 128-bit multiply-adds a cycle; Mali-G52: 24 multiply-adds a core and cycle",
    ),
)

_GALAXY_S21 = DeviceProfile(
    name="galaxy-s21",
    title="Samsung Galaxy S21",
    soc="Samsung Exynos 2100 (Snapdragon 888 in some countries)",
    transport="adb",
    tags=("android", "samsung"),
    runtime="tflite",
    precisions=(Precision.FP32, Precision.FP16, Precision.INT8),
    accelerator="cpu",
    units=(
        ComputeUnit(
            accelerator="cpu",
            name="Cortex-X1 and Cortex-A78",
            peak_gflops={Precision.FP32: 92.8, Precision.FP16: 185.6, Precision.INT8: 371.2},
            cores=4,
            bandwidth_gb_s=44.0,
            launch_us=1.5,
            max_clock_mhz=2900,
        ),
        ComputeUnit(
            accelerator="gpu",
            name="Mali-G78 MP14",
            peak_gflops={Precision.FP32: 765.2, Precision.FP16: 1530.4},
            bandwidth_gb_s=44.0,
            launch_us=30.0,
            max_clock_mhz=854,
        ),
    ),
    marks=("SM-G991",),
    notes=(
        "The per-core peak is that of the Cortex-X1; the three Cortex-A78 have half of it.",
        "The record says which of the two chips a phone has.",
    ),
    sources=(
        "Samsung Exynos 2100: 1 Cortex-X1 at 2.9 GHz, 3 Cortex-A78 at 2.8 GHz, Mali-G78 MP14, LPDDR5 at 5500 Mbit/s "
        "on 64 bits",
        "Arm Cortex-X1: four 128-bit multiply-adds a cycle; Mali-G78: 32 multiply-adds a core and cycle, 854 MHz",
    ),
)

PROFILES: dict[str, DeviceProfile] = {
    profile.name: profile for profile in (_TITAN_XP, _JETSON_NANO, _INTEL_CORE, _NOVA6_SE, _GALAXY_S21)
}
"""Profiles by name."""


def recognised(description: str) -> DeviceProfile | None:
    """The profile that fits what a device says of itself, the most telling first; ``None`` where none does.

    Args:
        description: Model, graphics card and processor names, any text around them.
    """
    return next((p for p in PROFILES.values() if any(mark in description for mark in p.marks)), None)
