import numpy as np
import pytest
import torch

from search.latency.mlp import Ensemble, Pairs, fit_ensemble
from targets.errors import UsageError

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, size=(300, 3))
Y = np.exp(np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 8)
SMALL = {"members": 2, "hidden": 32}


def error(ensemble, base=None):
    return float(np.mean(np.abs(ensemble.predict(X[250:], base)[0] / Y[250:] - 1)))


@pytest.mark.parametrize("loss", ["log", "mape"])
def test_it_learns_what_a_line_cannot(loss):
    ensemble = fit_ensemble(X[:250], Y[:250], epochs=150, loss=loss, **SMALL)
    line = np.linalg.lstsq(np.c_[X[:250], np.ones(250)], np.log(Y[:250]), rcond=None)[0]
    of_line = float(np.mean(np.abs(np.exp(np.c_[X[250:], np.ones(50)] @ line) / Y[250:] - 1)))
    assert error(ensemble) < of_line / 2


def test_equal_seeds_give_equal_members_and_members_differ():
    one, same, other = (fit_ensemble(X, Y, epochs=3, seed=seed, **SMALL).predict(X)[1] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    assert (one[0] != one[1]).any()


def test_the_base_is_what_the_networks_correct():
    base = Y * 3
    ensemble = fit_ensemble(X[:250], Y[:250], base=base[:250], epochs=20, **SMALL)
    assert error(ensemble, base[250:]) < 1e-2


def test_members_see_only_their_rows():
    poisoned = Y.copy()
    poisoned[150:] *= 100
    halves = [np.arange(150), np.arange(150, 300)]
    members = fit_ensemble(X, poisoned, train_rows=halves, epochs=60, **SMALL).predict(X)[1]
    assert np.median(members[1] / members[0]) > 50


def test_pairs_hold_back_a_fall():
    x = np.linspace(0, 1, 200)[:, None]
    falling = np.exp(-x[:, 0])
    pairs = Pairs(x[:-100], x[100:], np.zeros(100))
    free, held = (fit_ensemble(x, falling, epochs=80, pairs=p, **SMALL).predict(x)[0] for p in (None, pairs))
    assert free[0] / free[-1] > 2
    assert held[0] / held[-1] < 1.3


def test_features_that_never_varied_change_nothing():
    wide = np.c_[X, np.full(len(X), 7.0)]
    ensemble = fit_ensemble(wide, Y, epochs=2, **SMALL)
    moved = wide.copy()
    moved[:, 3] = 99
    assert (ensemble.predict(wide)[0] == ensemble.predict(moved)[0]).all()


def test_progress_ends_at_one():
    told = []
    fit_ensemble(X, Y, epochs=7, progress=told.append, **SMALL)
    assert told[-1] == 1
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("x", "y"), [(X, Y[:-1]), (X, -Y), (X * np.nan, Y), (X[:1], Y[:1]), (X[:, 0], Y), (X, np.full(300, np.inf))]
)
def test_rows_that_cannot_be_fitted_are_refused(x, y):
    with pytest.raises(UsageError):
        fit_ensemble(x, y, epochs=1, **SMALL)


def test_arrays_that_do_not_fit_together_are_refused():
    tensors = fit_ensemble(X, Y, epochs=1, **SMALL).tensors()
    assert Ensemble.of(tensors).features == 3
    for name in tensors:
        with pytest.raises(UsageError):
            Ensemble.of({**tensors, name: torch.zeros(1, 1, 1, 1)})
        with pytest.raises(UsageError):
            Ensemble.of({key: tensor for key, tensor in tensors.items() if key != name})
    with pytest.raises(UsageError):
        Ensemble.of(tensors).predict(X[:, :2])
