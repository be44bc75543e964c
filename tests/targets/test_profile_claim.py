"""The verdict of the benchmark on per-op profiles."""

import pytest

from benchmarks.per_op_coverage import judged
from targets.profiles.assemble import Joined, Row, finished


def profile_with(residual):
    row = Row("op", "Conv", "", 100.0 * (1 + residual), Joined(module="m"))
    return finished("onnxruntime", [row], runs=1, unprofiled_us=100.0, profiled_us=110.0, notes=[])


@pytest.mark.parametrize(
    ("residuals", "good"), [((0.2, -0.2, 0.0), False), ((0.2, -0.2, 0.3), False), ((0.04, -0.04, 0.3), True)]
)
def test_misses_of_both_signs_do_not_cancel(residuals, good, capsys):
    assert judged("onnxruntime", "net", [profile_with(residual) for residual in residuals]) is good
    assert "|residual|" in capsys.readouterr().out
