"""One conversation after the other with the agent on a device: send it, ask it, check who answers, clear up."""

from __future__ import annotations

import json
import posixpath
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.drivers.agent_answer import About, AgentAnswer, checked, raised, read_answer
from targets.drivers.agent_pack import write_agent
from targets.errors import DeviceUnavailable, FailureKind, KitError, SessionFailed
from targets.inventory import Device
from targets.transports.base import Transport
from targets.transports.upload_cache import cached_upload

_RETRIES = 1
_AFTER_S = 30.0  # by which the agent's own deadline lies behind ours: ours says what happened
_CLOCK_SLACK = 1.05
_HELLO_S = 120.0


class AgentLine:
    """Asks the agent.

    Args:
        device: Names Python, tools and the work folder.
        transport: The open way to it.
        runtime: Runtime that is asked about.
    """

    def __init__(self, device: Device, transport: Transport, runtime: str) -> None:
        self._device = device
        self._transport = transport
        self._runtime = runtime
        self._sent: dict[str, str] = {}
        self._folders: list[str] = []
        self._about: About | None = None

    @property
    def where(self) -> str:
        """The device's name, for messages."""
        return self._device.name

    @property
    def work_folder(self) -> str:
        """Folder of the kit on the device."""
        return self._transport.work_folder

    def session_folder(self, session_id: str) -> str:
        """Folder of one session on the device."""
        return posixpath.join(self.work_folder, "sessions", session_id)

    def send(self, local: Path, sha256: str) -> str:
        """Put a file on the device, once in the life of this line.

        Returns:
            Its path there.

        Raises:
            SessionFailed: If it cannot be put there.
        """
        if sha256 not in self._sent:
            self._sent[sha256] = cached_upload(self._transport, local, sha256)
        return self._sent[sha256]

    def about(self) -> About:
        """What the device says of itself; asked once.

        Raises:
            SessionFailed: If it gives no answer.
            DeviceUnavailable: If the agent cannot run there.
        """
        if self._about is None:
            job: dict[str, Any] = {"task": "hello", "runtime": self._runtime, "tool": self._device.tool}
            job["ask_tool"] = self._runtime == "tensorrt"
            answer = self.ask(uuid.uuid4().hex, lambda: job, timeout_s=_HELLO_S)
            self._about = checked(About, answer.result, where=self.where)
        return self._about

    def ask(self, session_id: str, job: Any, *, timeout_s: float, echo: Mapping[str, Any] | None = None) -> AgentAnswer:
        """Ask for one thing, and once more where the connection or the time was lost, or a sent file was damaged.

        The second time goes under the same session id: what the agent has finished meanwhile is fetched.

        Args:
            session_id: 32 hexadecimal digits.
            job: Callable that gives the task's own keys, uploads included, for a device that lost them.
            timeout_s: Deadline of one attempt.
            echo: What the answer must repeat.

        Raises:
            SessionFailed: If there is no answer.
            KitError: If the agent refused.
        """
        begin = time.monotonic()
        self._folders.append(self.session_folder(session_id))
        for attempt in range(_RETRIES + 1):
            try:
                answer = self._ask_once(session_id, job(), timeout_s, echo)
                if answer.failure is None or attempt == _RETRIES or not self._is_damaged():
                    break
            except (SessionFailed, DeviceUnavailable) as error:
                retryable = isinstance(error, SessionFailed) and error.kind.retryable
                if attempt == _RETRIES or not (retryable or self._is_damaged()):
                    raise
            self._sent.clear()
        self._check(answer, session_id, echo, time.monotonic() - begin)
        self._forget(session_id)
        if answer.failure is not None:
            raise raised(answer.failure)
        return answer

    def _is_damaged(self) -> bool:
        """Whether a file that was sent is not there any more, or is another."""
        try:
            return any(self._transport.checksum(place) != sha256 for sha256, place in self._sent.items())
        except KitError:  # the failure that led here is the one to tell
            return False

    def _ask_once(
        self, session_id: str, job: Mapping[str, Any], timeout_s: float, echo: Mapping[str, Any] | None
    ) -> AgentAnswer:
        nonce = uuid.uuid4().hex
        line = {
            **job,
            "session_id": session_id,
            "nonce": nonce,
            "work_folder": self.work_folder,
            "deadline_s": timeout_s + _AFTER_S,
            "wait_s": timeout_s,
            "echo": echo,
        }
        with tempfile.TemporaryDirectory(prefix="inas-agent-") as folder:
            agent = self.send(*write_agent(Path(folder)))
        done = self._transport.run(
            [self._python(), agent],
            input_bytes=json.dumps(line, sort_keys=True).encode() + b"\n",
            timeout_s=timeout_s,
            keep_input_open=True,
        )
        return read_answer(done, nonce, where=self.where)

    def _python(self) -> str:
        if self._device.python is not None:
            return self._device.python
        return sys.executable if self._device.transport == "local" else "python3"

    def _check(self, answer: AgentAnswer, session_id: str, echo: Mapping[str, Any] | None, wall_s: float) -> None:
        """Refuse an answer to another question, or one that claims more time than went by."""
        if answer.session_id != session_id or (answer.failure is None and answer.echo != echo):
            raise SessionFailed(
                f"the agent on {self.where} answered another question than was asked",
                FailureKind.TOOL_ERROR,
                "Nothing of it is used; measure again.",
            )
        replayed = hasattr(self._transport, "recorded_transport")
        if not replayed and answer.took_s > wall_s * _CLOCK_SLACK + 1:
            raise SessionFailed(
                f"the agent on {self.where} says it took {answer.took_s:.1f} s, and {wall_s:.1f} s went by here",
                FailureKind.TOOL_ERROR,
                "Check the device's clock.",
            )

    def _forget(self, session_id: str) -> None:
        """Remove a session's folder, which holds its answer until then; what fails is left to the sweep."""
        folder = self.session_folder(session_id)
        try:
            self._transport.remove(folder)
        except SessionFailed:
            return
        self._folders.remove(folder)

    def close(self) -> None:
        """Remove the folders of sessions whose answer never came; models stay cached.

        Raises:
            KitError: If the device cannot be reached for it; its next sweep removes them.
        """
        left, self._folders = self._folders, []
        failed: KitError | None = None
        for folder in left:
            try:
                self._transport.remove(folder)
            except KitError as error:
                failed = error
        if failed is not None:
            raise failed
