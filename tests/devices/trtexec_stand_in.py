"""Stands in for ``trtexec`` where there is no NVIDIA GPU: it knows the flags of three versions and writes files of
their layouts. Its figures are made up. It exists to make recordings and to test what runs trtexec; what comes of it
is labelled recorded or virtual. ``TRTEXEC_VERSION`` chooses the version."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.targets import trtexec_files as files

COMMON = {"help", "device", "onnx", "saveEngine", "loadEngine", "profilingVerbosity", "noTF32", "timingCacheFile"}
COMMON |= {"warmUp", "duration", "iterations", "avgRuns", "percentile", "exportTimes", "exportProfile"}
COMMON |= {"exportLayerInfo", "separateProfileRun", "useCudaGraph", "useSpinWait", "noDataTransfers", "verbose"}
FLAGS = {
    "8.2.1": COMMON | {"workspace", "buildOnly", "streams", "fp16", "int8", "nvtxMode", "calib"},
    "10.13.0": COMMON | {"memPoolSize", "skipInference", "infStreams", "fp16", "int8", "builderOptimizationLevel"},
    "11.1.0": COMMON
    | {"memPoolSize", "skipInference", "infStreams", "builderOptimizationLevel"}
    | {"noCudaGraph", "noSpinWait", "includeDataTransfers"},
}


def switches(version, given):
    """What is on, as the version's own defaults and the flags say."""
    new = version.startswith("11")
    graph = new or "useCudaGraph" in given
    spin = new or "useSpinWait" in given
    transfers = not new and "noDataTransfers" not in given
    words = {True: "Enabled", False: "Disabled"}
    return {
        "graph": words[graph and "noCudaGraph" not in given],
        "spin": words[spin and "noSpinWait" not in given],
        "transfers": words[transfers or "includeDataTransfers" in given],
        "precision": "FP32" + "".join(f"+{name.upper()}" for name in ("fp16", "int8") if name in given),
    }


def main(arguments):
    version = os.environ.get("TRTEXEC_VERSION", "8.2.1")
    given = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        given[name.removeprefix("--")] = value
    words = " ".join(arguments)
    print(files.banner(version, "RUNNING", words))
    unknown = sorted(set(given) - FLAGS[version])
    if unknown or "help" in given:
        if unknown:
            print(f"[11/20/2026-10:00:00] [E] Unknown option: --{unknown[0]} {given[unknown[0]]}")
            print(files.banner(version, "FAILED", words))
        return 1
    if "loadEngine" not in given:
        model = Path(given["onnx"]).read_bytes()
        if not model:
            print("[11/20/2026-10:00:00] [E] [TRT] ModelImporter.cpp: Failed to parse ONNX model")
            print(files.banner(version, "FAILED", words))
            return 1
        Path(given["saveEngine"]).write_bytes(model)
        Path(given["timingCacheFile"]).write_bytes(b"made up")
        print("[11/20/2026-10:00:00] [I] Engine built in 1.5 sec.")
        print(files.banner(version, "PASSED", words))
        return 0
    engine = Path(given["loadEngine"])
    print("\n".join(files.log(version, words, **switches(version, given)).splitlines()[1:]))
    Path(given["exportTimes"]).write_text(files.times(version, seed=os.getpid()), encoding="utf-8")
    for kind, write in (("exportProfile", files.profile), ("exportLayerInfo", files.layers)):
        if kind in given:
            Path(given[kind]).write_text(write(version, engine), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
