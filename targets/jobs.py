"""What a fresh process is told to do, and what it answers: the wire between session and worker."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

from pydantic import Field

from targets.errors import FailureKind
from targets.records import Artifact, Frozen, OpProfile, RunSettings, SessionRecord


class Job(Frozen):
    """One task for one fresh process.

    Attributes:
        task: ``time`` a session, ``profile`` per op, or ``infer`` once on given inputs.
        artifact: What to load.
        settings: How to run it.
        reference: Another model that takes turns with it, where the driver can do that (this machine can): what slows
            the machine then slows both. For ``time`` and ``profile``.
        index: Position of the session among its variant's.
        seconds: Length of the timed part.
        min_runs: Fewest timed inferences, unless they would take longer than half a minute.
        input_path: ``.npy`` file of the one input, for ``infer``.
        output_path: ``.npy`` file to write the first output to, for ``infer``.
        parent_pid: The worker ends when this process is gone.
        session_id: Id of the session; made by whoever asks, so that asking again after a lost connection is no second
            session.
    """

    task: Literal["time", "profile", "infer"]
    artifact: Artifact
    settings: RunSettings
    reference: Artifact | None = None
    index: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(gt=0, le=86_400)] = 1.0
    min_runs: Annotated[int, Field(ge=1)] = 10
    input_path: str = ""
    output_path: str = ""
    parent_pid: int = 0
    session_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = Field(default_factory=lambda: uuid.uuid4().hex)


class Failure(Frozen):
    """Why a worker has no result.

    Attributes:
        what: What went wrong.
        fix: What to do.
        kind: Class of the failure.
        error: Name of the error class in :mod:`targets.errors` to raise again.
    """

    what: str
    fix: str = ""
    kind: FailureKind
    error: str


class Answer(Frozen):
    """The worker's one answer: a session, a profile, or a failure."""

    session: SessionRecord | None = None
    profile: OpProfile | None = None
    failure: Failure | None = None
