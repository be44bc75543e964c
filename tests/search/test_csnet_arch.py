import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.spaces.csnet.arch import CSNetArch, check_input_size
from search.spaces.registry import find_arch
from targets.errors import UsageError
from tests.search.csnet_lists import X1_L, X2_L

channels = st.integers(1, 300)
pair = st.tuples(channels, channels) | st.tuples(channels) | st.tuples(st.just(0), channels)


@st.composite
def archs(draw):
    def stage(count):
        return (*(draw(pair) for _ in range(count - 1)), (draw(channels),))

    mid = draw(st.tuples(channels, channels, st.integers(0, 300)))
    rows = tuple(draw(st.tuples(*[st.integers(0 if i else 1, 9)] * 5)) if m else (0,) * 5 for i, m in enumerate(mid))
    return CSNetArch(
        stem=draw(pair),
        stage1=tuple(draw(pair) for _ in range(3)),
        stage2=stage(4),
        stage3=stage(6),
        stage4=stage(4),
        csf_mid=mid,
        dilated=rows,
        csf_out=draw(channels),
    )


@given(archs())
def test_json_round_trip_keeps_arch_and_hash(arch):
    again = CSNetArch.from_json(arch.to_json())
    assert again == arch
    assert again.sha256() == arch.sha256()
    shuffled = json.dumps(dict(reversed(json.loads(arch.to_json()).items())), indent=3)
    assert CSNetArch.from_json(shuffled).sha256() == arch.sha256()


@given(st.text(max_size=60) | st.recursive(st.none() | st.integers(), lambda x: st.lists(x)).map(json.dumps))
def test_other_json_is_one_clear_line(text):
    with pytest.raises(UsageError) as caught:
        CSNetArch.from_json(text)
    assert "\n" not in str(caught.value)
    assert "CSNet architecture JSON is not valid" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stem": [8, -1]}, "stem[1]"),
        ({"stem": [0, 0]}, "stem: has no channels left"),
        ({"stem": [8.5, 4]}, "stem[0]"),
        ({"stem": [True, 4]}, "stem[0]"),
        ({"stem": [1, 2, 3]}, "stem"),
        ({"stage2": [[19, 13], [19, 17], [20, 12], [34, 2]]}, "stage2[3]: the last block of a stage must have one"),
        ({"stage3": []}, "stage3"),
        ({"csf_mid": [0, 0, 0]}, "csf_mid: has no channels left"),
        ({"csf_mid": [12, 0, 24]}, "dilated[1]: has channels, but csf_mid[1] is 0"),
        ({"dilated": [[0] * 5] * 3}, "dilated: has no channels left"),
        ({"csf_out": 0}, "csf_out"),
        ({"space": "other"}, "space"),
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_invalid_data_names_the_place(change, says):
    values = {**json.loads(X1_L.to_json()), **change}
    with pytest.raises(UsageError) as caught:
        CSNetArch.from_json(json.dumps(values))
    assert says in str(caught.value)


def test_hash_tells_networks_apart():
    assert len({X1_L.sha256(), X2_L.sha256(), CSNetArch.fixed(1).sha256(), CSNetArch.fixed(1, (1, 0)).sha256()}) == 4


def test_fixed_widths():
    x1 = CSNetArch.fixed()
    assert (x1.stem, x1.stage2[0], x1.stage4[-1], x1.csf_mid, x1.csf_out) == (
        (10, 10),
        (20, 20),
        (80,),
        (13, 26, 26),
        65,
    )
    assert CSNetArch.fixed(1, (3, 1)).stem == (15, 5)
    assert CSNetArch.fixed(1, (1, 0)).stem == (20,)
    assert CSNetArch.fixed(2, (5, 5)) == CSNetArch.fixed(2)


INFINITE = float("inf")


@pytest.mark.parametrize("k", [0, -1, float("nan"), 1e9, 0.05])
def test_impossible_widths_are_refused(k):
    with pytest.raises(UsageError):
        CSNetArch.fixed(k)


@pytest.mark.parametrize("split", [(0, 0), (-1, 2), (INFINITE, 1)])
def test_impossible_splits_are_refused(split):
    with pytest.raises(UsageError):
        CSNetArch.fixed(1, split)


def test_input_size_error_says_the_multiple():
    check_input_size((240, 16))
    for size in ((225, 224), (224, 8), (0, 0), (-16, 16)):
        with pytest.raises(UsageError, match="multiples of 16"):
            check_input_size(size)


def test_names():
    assert find_arch("csnet-x1") == CSNetArch.fixed(1)
    assert find_arch("CSNet-x1.5") == CSNetArch.fixed(1.5)
    assert find_arch("csnet-x1-s3-1") == CSNetArch.fixed(1, (3, 1))
    assert find_arch("csnet-x2.25") == CSNetArch.fixed(2.25)


@pytest.mark.parametrize("name", ["csnet-x", "csnet-x1-3/1", "cnset-x1", "", "../csnet-x1", "csnet-x1-s", "resnet50"])
def test_unknown_names_list_close_ones(name):
    with pytest.raises(UsageError) as caught:
        find_arch(name)
    assert "csnet-x1" in str(caught.value)


@pytest.mark.parametrize("name", ["csnet-x0", "csnet-x1-s0-0"])
def test_names_that_make_no_network(name):
    with pytest.raises(UsageError):
        find_arch(name)
