"""Files and logs of trtexec, constructed to the documented format: no NVIDIA GPU wrote them, and none of the figures
is a measurement. Layouts: 8.2 (warm-up in the list, endToEndMs, layers without Metadata), 10 and 11 (Metadata)."""

import json
import random
from pathlib import Path

import onnx

FIXTURES = Path(__file__).parent / "fixtures" / "trtexec"
VERSIONS = {"8.2.1": "8201", "10.13.0": "101300", "11.1.0": "110100"}
WARM_UP, TIMED, PROFILED = 4, 16, 80
GPU = "NVIDIA constructed"


def six(value):
    """A number as a C++ stream prints it: six significant digits."""
    return float(f"{value:.6g}")


def raw(value):
    return json.dumps(value).replace('": ', '" : ')


def times(version, seed=0, mean_ms=1.5):
    """The text of --exportTimes."""
    draw = random.Random(seed)
    old = version.startswith("8.2")
    rows, at = [], 490.0 if old else 501.0
    for _ in range(WARM_UP + TIMED if old else TIMED):
        start, compute = at + draw.uniform(0.01, 0.05), mean_ms * draw.uniform(0.98, 1.04)
        row = {
            "startEnqMs": six(start - 0.008),
            "endEnqMs": six(start + 0.3),
            "startH2dMs": six(start),
            "endH2dMs": six(start),
            "startComputeMs": six(start),
            "endComputeMs": six(start + compute),
            "startD2hMs": six(start + compute),
            "endD2hMs": six(start + compute),
            "h2dMs": 0,
            "computeMs": six(compute),
            "d2hMs": 0,
            "latencyMs": six(compute),
        }
        if old:
            row["endToEndMs"] = six(compute)
        rows.append(row)
        at = start + compute
    return "[\n  " + "\n, ".join(map(raw, rows)) + "\n]\n"


def groups(model):
    """Nodes of a model as an engine might fuse them: a convolution takes what follows it up to the next one."""
    found = []
    for node in onnx.load(str(model)).graph.node:
        if node.op_type == "Constant":
            continue
        if found and len(found[-1]) < 3 and node.op_type not in ("Conv", "Concat", "Resize", "MaxPool", "AveragePool"):
            found[-1].append(node)
        else:
            found.append([node])
    return found


def layer_rows(version, model):
    """Detailed layers; a reformatting copy stands first."""
    rows = [
        {
            "Name": f"Reformatting CopyNode for Input Tensor 0 to {' + '.join(n.name for n in groups(model)[0])}",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "image", "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "copied", "Format/Datatype": "Channel major FP32 format"}],
            "TacticName": "",
        }
    ]
    for index, nodes in enumerate(groups(model)):
        fused = " + ".join(node.name for node in nodes)
        row = {
            "Name": fused if version.startswith("8") else f"__myl_{nodes[0].op_type}_myl0_{index}",
            "LayerType": "CaskConvolution" if nodes[0].op_type == "Conv" else "PointWiseV2",
            "Inputs": [{"Name": f"in{index}"}],
            "Outputs": [{"Name": f"out{index}", "Format/Datatype": "Channel major FP32 format"}],
            "TacticName": "sm80_constructed_kernel" if nodes[0].op_type == "Conv" else "",
        }
        if not version.startswith("8"):
            row["StreamId"] = 0
            row["Metadata"] = "\x1e".join(f"[ONNX Layer: {node.name}]" for node in nodes)
        rows.append(row)
    return rows


def layers(version, model):
    """The text of --exportLayerInfo; the separators of Metadata stand in it as they are."""
    text = json.dumps({"Layers": layer_rows(version, model), "Bindings": ["image", "saliency"]}, indent=1)
    return text.replace("\\u001e", "\x1e")


def profile(version, model, seed=0, mean_ms=1.5):
    """The text of --exportProfile."""
    draw = random.Random(seed)
    names = [row["Name"] for row in layer_rows(version, model)]
    weights = [draw.uniform(0.2, 3) for _ in names]
    totals = [six(mean_ms * 1.02 * PROFILED * weight / sum(weights)) for weight in weights]
    rows = [{"count": PROFILED}]
    for name, total in zip(names, totals, strict=True):
        row = {"name": name, "timeMs": total, "averageMs": six(total / PROFILED)}
        if not version.startswith("8.2"):
            row["medianMs"] = six(total / PROFILED)
        rows.append({**row, "percentage": six(total / sum(totals) * 100)})
    return "[\n  " + "\n, ".join(map(raw, rows)) + "\n]\n"


def banner(version, verdict, arguments=""):
    build = "" if version.startswith("8") else " [b1]"
    return f"&&&& {verdict} TensorRT.trtexec [TensorRT v{VERSIONS[version]}]{build} # trtexec {arguments}".rstrip()


def log(version, arguments="", *, precision="FP32", graph="Disabled", spin="Enabled", transfers="Disabled"):
    """What it prints while timing."""
    stamp = "[11/20/2026-10:00:00]"
    lines = [
        banner(version, "RUNNING", arguments),
        f"{stamp} [I] === Build Options ===",
        f"{stamp} [I] Precision: {precision}",
        f"{stamp} [I] Input(s)s format: fp32:CHW",
        f"{stamp} [I] Output(s)s format: fp32:CHW",
        f"{stamp} [I] === Inference Options ===",
        f"{stamp} [I] {'Streams' if version.startswith('8') else 'Inference Streams'}: 1",
        f"{stamp} [I] Data transfers: {transfers}",
        f"{stamp} [I] Spin-wait: {spin}",
        f"{stamp} [I] CUDA Graph: {graph}",
        f"{stamp} [I] === Device Information ===",
        f"{stamp} [I] Selected Device: {GPU}",
        f"{stamp} [I] Compute Capability: 5.3",
        f"{stamp} [I] Engine deserialized in 0.0213 sec.",
        f"{stamp} [I] Warmup completed {WARM_UP} queries over 500 ms",
        f"{stamp} [I] Timing trace has {TIMED} queries over 0.1 s",
        f"{stamp} [W] * GPU compute time is unstable, with coefficient of variance = 3.25%.",
        f"{stamp} [I] ",
        banner(version, "PASSED", arguments),
    ]
    return "\n".join(lines) + "\n"


def texts(version, model, **options):
    """All that a profiling run gives."""
    return {
        "run_log": log(version, **options),
        "times": times(version),
        "profile": profile(version, model),
        "layers": layers(version, model),
    }
