import json
from collections import Counter
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from search.latency.conditions import Conditions
from search.latency.observations import Observation, read_observations
from search.latency.pace import reference_arch
from search.latency.profiling import OBSERVATIONS, ProfileRequest, ProfileRun, carriers_in, locked
from search.latency.settling import FEWEST, MOST
from search.latency.tabulate import table_of
from search.spaces.registry import find_space
from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError
from targets.records import RunSettings

SIZE = (64, 64)
SPACE = find_space("inas-tiny")


class CountingMeasurer:
    """A device whose blocks take as long as their MACs say; it fails or is killed where it is told to."""

    def __init__(self, *, fail=(), kill_at=None, reference_us=None):
        files = SimpleNamespace(input_size=SIZE, discard=self._discard)
        self.exporter = SimpleNamespace(files=files, workers=1, ahead=lambda archs: None, paused=nullcontext)
        self.fail, self.kill_at = set(fail), kill_at
        self.reference_us = reference_us
        self.alongside = False
        self.prepared = []
        self.calls = []
        self.discarded = []

    def prepare(self, archs):
        self.prepared.append([arch.sha256() for arch in archs])

    def _discard(self, arch):
        self.discarded.append(arch.sha256())

    def _begin(self, arch, role):
        self.calls.append((role, arch.sha256()))
        if len(self.calls) == self.kill_at:
            raise KeyboardInterrupt
        if len(self.calls) in self.fail:
            raise SessionFailed("the process ended", FailureKind.TOOL_ERROR)

    def profile(self, arch, role):
        self._begin(arch, role)
        blocks = {spec.name: 3 + spec.macs / 2000 for spec in arch.blocks(SIZE)}
        return self._observed(arch, role, 6.0, blocks)

    def session(self, arch, role, index=0):
        self._begin(arch, role)
        return self._observed(arch, role, 1.0, {})

    def _observed(self, arch, role, device_s, blocks):
        total = sum(3 + spec.macs / 2000 for spec in arch.blocks(SIZE))
        return Observation(
            role=role, arch=json.loads(arch.to_json()), at=datetime.now(UTC), total_us=total, device_s=device_s,
            blocks_us=blocks, reference_us=self.reference_us,
        )  # fmt: skip

    def conditions(self, space):
        settings = RunSettings(runtime="onnxruntime")
        return Conditions(device="local", settings=settings, space=space.id, input_size=SIZE)


def request(folder, minutes=2.0, **other):
    return ProfileRequest(
        folder=folder, space=SPACE, minutes=minutes, calibration=4, apart=3, **{"repeats": 1, **other}
    )


def test_a_run_profiles_times_and_stays_within_its_minutes(tmp_path):
    measurer, steps = CountingMeasurer(), []
    _, found = ProfileRun(request(tmp_path), measurer, show=steps.append).run()
    roles = Counter(one.role for one in found)
    assert sum(one.device_s for one in found) <= 2 * 60 + 6
    assert roles["carrier"] >= 10
    assert roles["reference"] - roles["carrier"] // 8 in (0, 1)
    assert roles["calibration"] == 4 * FEWEST
    assert roles["interval"] == 1 + 3 * FEWEST
    assert len(table_of(measurer.conditions(SPACE), found).rows) > 300
    carriers = {json.dumps(one.arch) for one in found if one.role == "carrier"}
    assert len(carriers) == roles["carrier"]
    timed = {json.dumps(one.arch) for one in found if one.role == "calibration"}
    assert len(timed) == 4
    assert not timed & carriers
    assert steps[-1].doing == "timing"
    assert 0.1 < steps[-1].covered < 1
    assert len(measurer.discarded) == roles["carrier"] + 7
    assert all(6 <= len(batch) <= 10 for batch in measurer.prepared[:-2])
    assert {key for batch in measurer.prepared for key in batch} >= {
        key for role, key in measurer.calls[1:] if role != "reference"
    }


def test_where_a_reference_takes_turns_it_needs_no_profiles_and_networks_the_fewest_sessions(tmp_path):
    measurer = CountingMeasurer(reference_us=900.0)
    header, found = ProfileRun(request(tmp_path), measurer).run()
    assert {role for role, _ in measurer.calls} == {"carrier", "calibration", "interval"}
    assert measurer.reference == reference_arch(SPACE, header.seed)
    assert measurer.calls[0] == ("interval", measurer.reference.sha256())
    counts = Counter(arch for role, arch in measurer.calls if role != "carrier")
    assert counts.pop(measurer.reference.sha256()) in (1, FEWEST)
    assert set(counts.values()) == {FEWEST}
    assert {one.reference_us for one in found} == {900.0}


class Unsteady(CountingMeasurer):
    """Every session of a network takes longer than the one before."""

    def session(self, arch, role, index=0):
        found = super().session(arch, role, index)
        return found.model_copy(update={"total_us": found.total_us * (1 + index / 5)})


@pytest.mark.parametrize(("reference_us", "sessions"), [(900.0, {FEWEST}), (None, {MOST})])
def test_sessions_that_disagree_are_repeated_unless_a_reference_tells_the_machines_speed(
    tmp_path, reference_us, sessions
):
    measurer = Unsteady(reference_us=reference_us)
    ProfileRun(request(tmp_path), measurer).run()
    counts = Counter(arch for role, arch in measurer.calls if role in ("calibration", "interval"))
    del counts[measurer.reference.sha256()]
    assert set(counts.values()) == sessions


def test_each_carrier_is_profiled_in_as_many_processes_as_asked_for(tmp_path):
    measurer = CountingMeasurer()
    _, found = ProfileRun(request(tmp_path, repeats=3), measurer).run()
    carriers = Counter(json.dumps(one.arch) for one in found if one.role == "carrier")
    assert set(carriers.values()) == {3}
    assert carriers_in(found) == len(carriers)


@pytest.mark.parametrize("kill_at", [3, 25])
def test_a_run_that_is_stopped_goes_on_without_measuring_twice(tmp_path, kill_at):
    first = CountingMeasurer(kill_at=kill_at)
    with pytest.raises(KeyboardInterrupt):
        ProfileRun(request(tmp_path), first).run()
    kept = read_observations(tmp_path / OBSERVATIONS)[1]
    assert len(kept) == kill_at - 1
    second = CountingMeasurer()
    _, found = ProfileRun(request(tmp_path), second).run()
    assert found[: len(kept)] == kept
    assert len(found) == len(kept) + len(second.calls)
    carriers = [json.dumps(one.arch) for one in found if one.role == "carrier"]
    assert len(set(carriers)) == len(carriers)
    timed = Counter(json.dumps(one.arch) for one in found if one.role == "calibration")
    assert set(timed.values()) == {FEWEST}


def test_a_longer_time_goes_on_where_the_shorter_one_ended(tmp_path):
    _, short = ProfileRun(request(tmp_path, 1.0), CountingMeasurer()).run()
    _, longer = ProfileRun(request(tmp_path, 2.0), CountingMeasurer()).run()
    assert longer[: len(short)] == short
    assert sum(one.role == "carrier" for one in longer) > sum(one.role == "carrier" for one in short)
    assert sum(one.role == "calibration" for one in longer) == 4 * FEWEST


def test_a_network_that_fails_is_left_out_and_a_device_that_only_fails_ends_the_run(tmp_path):
    run = ProfileRun(request(tmp_path / "one"), CountingMeasurer(fail={5}))
    run.run()
    assert len(run.skipped) == 1
    with pytest.raises(SessionFailed):
        ProfileRun(request(tmp_path / "all"), CountingMeasurer(fail=range(5, 9))).run()


def test_a_device_that_is_lost_ends_the_run_at_once(tmp_path):
    measurer = CountingMeasurer()

    def lost(arch, role):
        raise DeviceUnavailable("the device is gone")

    measurer.profile = lost
    with pytest.raises(DeviceUnavailable):
        ProfileRun(request(tmp_path), measurer).run()


def test_certain_blocks_are_not_asked_for_once_all_were_seen(tmp_path):
    asked = []

    def weigh(table):
        asked.append(len(table.rows))
        return lambda key: float(key[0] == "inas.head")

    run = ProfileRun(request(tmp_path, 2.0, refit_every=4), CountingMeasurer(), weigh=weigh)
    run._blocks = {spec.key for spec in SPACE.smallest().blocks(SIZE)}
    run.run()
    assert len(asked) >= 2
    assert asked == sorted(asked)


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(UsageError, match="another process"):
        ProfileRun(request(tmp_path), CountingMeasurer()).run()
    with locked(tmp_path):
        pass
