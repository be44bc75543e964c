"""The fresh process of one check: ``python -m targets.tensorrt.check_worker REQUEST.json ANSWER.json STAGE``."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from targets.errors import FailureKind, InvalidModel, KitError
from targets.extras import require
from targets.files import write_atomic
from targets.host import peak_rss_mb
from targets.jobs import Failure
from targets.tensorrt.build import BuildRequest, build_engine
from targets.tensorrt.check import EXTRA, MODULE, CheckAnswer, CheckRequest


def answer_to(request: CheckRequest, stage: Path) -> CheckAnswer:
    """Parse and build in this process.

    Args:
        request: What to build.
        stage: File that tells how far this process came, should it crash.

    Raises:
        KitError: If the module or the request is refused.
    """
    trt = require(MODULE, EXTRA)
    limit = request.memory_mib << 20  # only now: a library that does not fit would look as if it were not installed
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    asked = BuildRequest(Path(request.path), request.precision, request.compute_capability)
    try:
        outcome = build_engine(trt, asked, on_stage=lambda name: write_atomic(stage, name.encode()))
    except InvalidModel as error:
        if "alloc failed" in error.what:  # protobuf's way of saying so
            raise MemoryError(error.what) from error
        raise
    return CheckAnswer(
        parses=outcome.parses,
        builds=outcome.plan is not None,
        layers=outcome.layers,
        failing=tuple(outcome.failing),
        messages=tuple(outcome.messages),
        versions={"tensorrt-rtx": str(trt.__version__)},
        peak_rss_mb=peak_rss_mb(),
    )


def main() -> None:
    """Read the request, answer it, leave."""
    request_path, answer_path, stage = map(Path, sys.argv[1:4])
    request = CheckRequest.model_validate_json(request_path.read_bytes())
    try:
        answer = answer_to(request, stage)
    except KitError as error:
        failure = Failure(what=error.what, fix=error.fix, kind=FailureKind.TOOL_ERROR, error=type(error).__name__)
        answer = CheckAnswer(failure=failure)
    write_atomic(answer_path, answer.model_dump_json().encode())


if __name__ == "__main__":
    main()
