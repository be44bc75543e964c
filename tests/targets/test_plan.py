from collections import Counter

from targets.plan import BenchPlan
from tests.targets.making import ARTIFACT, variant

VARIANTS = (variant("A"), variant("B"), variant(threads=2))
PLAN = BenchPlan(variants=VARIANTS, sessions=40, seconds=0.1)


def test_every_round_holds_every_variant_once():
    order = PLAN.rounds()
    assert len(order) == 120
    for index in range(40):
        round_keys = {v.key for i, v in order[index * 3 : index * 3 + 3] if i == index}
        assert round_keys == {v.key for v in VARIANTS}


def test_two_variants_go_first_equally_often():
    pair = BenchPlan(variants=VARIANTS[:2], sessions=10, seconds=0.1)
    for seed in range(20):
        order = pair.model_copy(update={"seed": seed}).rounds()
        assert Counter(v.key for _, v in order[::2]) == {v.key: 5 for v in VARIANTS[:2]}


def test_no_variant_always_goes_first():
    firsts = Counter(v.key for position, (_, v) in enumerate(PLAN.rounds()) if position % 3 == 0)
    assert len(firsts) == 3
    assert min(firsts.values()) >= 5


def test_order_and_hash_repeat():
    again = BenchPlan.model_validate_json(PLAN.model_dump_json())
    assert again.rounds() == PLAN.rounds()
    assert again.sha256() == PLAN.sha256()


def test_hash_follows_content_and_not_the_place_of_the_file():
    moved = ARTIFACT.model_copy(update={"path": "elsewhere/net.onnx"})
    variants = tuple(v.model_copy(update={"artifact": moved}) for v in VARIANTS)
    assert PLAN.model_copy(update={"variants": variants}).sha256() == PLAN.sha256()
    assert PLAN.model_copy(update={"seconds": 0.2}).sha256() != PLAN.sha256()


def test_a_thing_can_be_compared_with_itself():
    assert variant("A").key != variant("B").key
