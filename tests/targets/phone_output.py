"""Outputs of benchmark_model laid out by hand to the format of its source, with figures that agree with each other."""

PLAN = (
    "Running benchmark for at least {runs} iterations and at least {seconds} seconds but terminate if exceeding "
    "30 seconds."
)


def summary(
    *,
    prefix="",
    percentiles=False,
    oldest=False,
    threads=1,
    delegate="Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the delegate.",
    extra=(),
) -> str:
    tails = (" p5=4102 median=4150 p95=4301", " p5=4098 median=4148 p95=4290") if percentiles else ("", "")
    end = (
        "Average inference timings in us: Warmup: 4171.25, Init: 12345, Inference: 4153.71"
        if oldest
        else "Inference timings in us: Init: 12345, First inference: 4611, Warmup (avg): 4171.25, "
        "Inference (avg): 4153.71"
    )
    lines = [
        "STARTING!",
        "Log parameter values verbosely: [0]",
        "Min num runs: [10]",
        "Min runs duration (seconds): [1]",
        f"Num threads: [{threads}]",
        "Min warmup runs: [10]",
        "Graph: [/data/local/tmp/net.tflite]",
        f"#threads used for CPU inference: [{threads}]",
        "Use xnnpack: [1]",
        *extra,
        "Loaded model /data/local/tmp/net.tflite",
        delegate,
        "The input model file size (MB): 0.264",
        "Initialized session in 12.345ms.",
        PLAN.format(runs=10, seconds=1),
        f"count=241 first=4611 curr=4160 min=4090 max=4611 avg=4171.25 std=50{tails[0]}",
        "",
        PLAN.format(runs=10, seconds=1),
        f"count=242 first=4149 curr=4151 min=4081 max=4402 avg=4153.71 std=40{tails[1]}",
        "",
        end,
        "Memory footprint delta from the start of the tool (MB): init=3.5 overall=9.25",
    ]
    return "\n".join(prefix + line if line else line for line in lines) + "\n"


def table(title, rows, *, csv=False, start=False, name="Run Order") -> str:
    """A section as the tool writes it; rows are (type, mean in us, calls, name)."""
    bar = "=" * 30
    total = sum(mean * calls for _, mean, calls, _ in rows)
    lines = [title, f"{bar} {name} {bar}"]
    if csv:
        lines.append(
            "node type, " + ("start, " if start else "") + "first, avg_ms, %, cdf%, mem KB, times called, name"
        )
    else:
        head = ["[node type]", *(["[start]"] if start else []), "[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]"]
        lines.append("\t" + "\t".join([*head, "[times called]", "[Name]"]))
    before = 0.0
    for op_type, mean, calls, row_name in rows:
        before += mean * calls
        share, running, ms = 100 * mean * calls / total, 100 * before / total, mean / 1e3
        if csv:
            begin = "0.001, " if start else ""
            escaped = row_name.replace(",", "\t")
            lines.append(f"{op_type}, {begin}{ms:g}, {ms:g}, {share:g}%, {running:g}%, 0, {calls}, {escaped}")
        else:
            begin = "\t    0.001" if start else ""
            lines.append(
                f"\t{op_type:>40}{begin}\t{ms:9.3f}\t{ms:9.3f}\t{share:7.3f}%\t{running:7.3f}%\t     0.000"
                f"\t{calls:9d}\t{row_name}"
            )
    lines += ["", f"Number of nodes executed: {len(rows)}", "", f"Timings (microseconds): count=1 curr={total:g}"]
    return "\n".join([*lines, "Memory (bytes): count=0", f"{len(rows)} nodes observed", "", ""])
