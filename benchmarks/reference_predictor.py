"""Makes the predictor of the virtual reference CPU, which ships with the kit, from a profile run of this machine.

The run's blocks are fitted anew with small networks, calibrated like any other predictor, and labelled as a stand-in: a
name that is nobody's device, and a note. Prints how good it is on blocks and networks it did not see.

    inas-deploy profile --space inas --runtime onnxruntime --minutes 30 --out RUN
    python -m benchmarks.reference_predictor --folder RUN
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inas_deploy.latency_fit import fit_run
from inas_deploy.shipped_predictor import REFERENCE_CPU, shipped_predictor
from search.latency.observations import read_observations
from search.latency.predictor import LatencyPredictor
from search.latency.profiling import OBSERVATIONS
from targets.errors import UsageError

HIDDEN = 32
NOTE = (
    "The virtual reference CPU that ships with the kit: a virtual machine with two cores, profiled once. It tells "
    "nothing about your device; learn that with inas-deploy profile."
)


def made_of(folder: Path) -> LatencyPredictor:
    """The predictor of a run, small, under the virtual reference CPU's name.

    Args:
        folder: What ``inas-deploy profile`` wrote.

    Raises:
        UsageError: If the run is not one of this very machine.
    """
    header, observations = read_observations(folder / OBSERVATIONS)
    if header is None or header.conditions.stand_in is not None:
        raise UsageError(f"{folder} holds no run that was measured", "Profile this machine.")
    conditions = header.conditions.model_copy(update={"device": REFERENCE_CPU, "stand_in": "virtual"})
    fitted = fit_run(header.model_copy(update={"conditions": conditions}), observations, hidden=HIDDEN)
    print(fitted.blocks.report.sentence)
    network = fitted.predictor.network
    return replace(fitted.predictor, network=network.model_copy(update={"notes": (NOTE, *network.notes)}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="what inas-deploy profile wrote")
    parser.add_argument("--out", type=Path, default=shipped_predictor())
    options = parser.parse_args(arguments)
    predictor = made_of(options.folder)
    predictor.save(options.out)
    interval = predictor.network.interval
    print(f"calibration error {predictor.network.calibration.error:.2%}, interval +-{interval.half_width:.2%}")
    print(f"wrote {options.out}, {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
