"""Data of a user's own: what is refused, how it is scored, an example that runs."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qubo_rounding.network.data import Data, load_data, score_network
from qubo_rounding.network.models import load_network
from qubo_rounding.network.whole.parts import Parts
from qubo_rounding.network.whole.quantize import quantize_network
from qubo_rounding.network.whole.result import QuantizedNetwork
from solvers.errors import InputError

X = torch.arange(12.0).reshape(4, 3)
Y = torch.tensor([0, 1, 0, 1])
NAMED = {"tokens": X, "padding": X > 5}


def source(**parts: Any) -> types.SimpleNamespace:
    """A source of data with some parts replaced; None takes a part out."""
    whole: dict[str, Any] = {
        "name": "accuracy",
        "calibration": [X, X[:2]],
        "evaluation": [(X, Y), (X[:3], Y[:3])],
        "score": lambda outputs, targets: outputs.argmax(1) == targets,
        **parts,
    }
    return types.SimpleNamespace(**{k: v for k, v in whole.items() if v is not None})


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads data from a factory that returns the given source."""

    def loaded(**parts: Any) -> Data:
        monkeypatch.setattr(f"{__name__}.given", lambda: source(**parts), raising=False)
        return load_data(f"{__name__}:given")

    return loaded


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 2).eval()


def unreadable() -> Any:
    class Unreadable(list):
        def __getitem__(self, index: Any) -> Any:
            raise OSError("no disk\nat all")

    return Unreadable([X])


def failing(*_: Any) -> Any:
    raise LookupError("first\nsecond")


def drawing() -> Any:
    """A factory that draws from torch's global generator."""
    return source(calibration=[torch.randn(4, 3)])


def test_what_is_loaded(load: Any) -> None:
    data = load()
    assert (data.name, data.mask) == ("accuracy", None)
    assert data.spec == f"{__name__}:given"
    assert load(mask=lambda batch: torch.ones(len(batch))).mask is not None


def test_scores_are_those_of_each_example(load: Any) -> None:
    model = network()
    with torch.no_grad():
        expected = model(X)[:, 0]
    data = load(score=lambda outputs, targets: outputs[:, 0])
    found = score_network(model, data)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, torch.cat([expected, expected[:3]]).numpy())


@pytest.mark.parametrize(
    "score",
    [
        lambda outputs, targets: outputs.argmax(1) == targets,
        lambda outputs, targets: (outputs.argmax(1) == targets).numpy(),
        lambda outputs, targets: (outputs.argmax(1) == targets).half(),
        lambda outputs, targets: (outputs.argmax(1) == targets).int().tolist(),
    ],
    ids=["bool", "numpy", "half", "list"],
)
def test_kinds_of_scores(load: Any, score: Any) -> None:
    expected = network()(X).argmax(1) == Y
    found = score_network(network(), load(score=score))
    assert found[:4].tolist() == expected.double().tolist()


def test_a_mapping_gives_arguments_by_name(load: Any) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2).double()

        def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
            out: Tensor = self.layer(tokens.masked_fill(padding, 0))
            return out

    model = Named().eval()
    data = load(
        calibration=[NAMED],
        evaluation=[(NAMED, Y)],
        mask=lambda batch: ~batch["padding"],
        score=lambda outputs, targets: -(outputs[:, 0] ** 2),
    )
    with torch.no_grad():
        expected = -(model(X.double(), X > 5)[:, 0] ** 2)
    np.testing.assert_allclose(score_network(model, data), expected.numpy())


def test_digests_tell_values_forms_and_targets_apart(load: Any) -> None:
    first = load()
    assert load().calibration_digest == first.calibration_digest
    assert load().evaluation_digest == first.evaluation_digest
    calibrations = [
        [X],
        [X, X[:2] + 1],
        [X[:2], X],
        [X.double(), X[:2]],
        [X.T, X],
        [NAMED],
    ]
    digests = [load(calibration=c).calibration_digest for c in calibrations]
    assert len({first.calibration_digest, *digests}) == len(calibrations) + 1
    targets = [Y, 1 - Y, Y.numpy(), Y.tolist(), (0, 1), "text", {"a": Y}, Y.bfloat16()]
    digests = [load(evaluation=[(X, t)]).evaluation_digest for t in targets]
    assert len(set(digests)) == len(targets)


def test_a_factory_has_a_seed_and_the_callers_generator_stays() -> None:
    before = torch.random.get_rng_state()
    first, second = (load_data(f"{__name__}:drawing") for _ in range(2))
    assert first.calibration_digest == second.calibration_digest
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digits", "^'digits' is not of the form package.module:factory$"),
        (
            "no.such:data",
            "^data no.such:data: ModuleNotFoundError: No module named 'no'",
        ),
        ("json:nothing", "^data json:nothing: AttributeError: .*nothing"),
        (f"{__name__}:failing", f"^data {__name__}:failing: LookupError: first$"),
        ("collections:OrderedDict", "OrderedDict without name; it needs name, calib"),
    ],
)
def test_factories_that_fail(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(spec)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"calibration": None}, "SimpleNamespace without calibration; it needs name, "),
        ({"evaluation": None}, "without evaluation"),
        ({"score": None}, "without score"),
        ({"name": 3}, "name must be a text, not 3$"),
        ({"score": 3}, "score must be a function of outputs and targets$"),
        ({"mask": 3}, "mask must be a function of a batch$"),
        ({"calibration": []}, "calibration is empty; give at least one batch$"),
        ({"evaluation": []}, "evaluation is empty"),
        ({"calibration": X}, "calibration is a Tensor; give a list of batches$"),
        ({"calibration": iter([X])}, "calibration is a list_iterator; give a list"),
        ({"calibration": NAMED}, "calibration is a dict; give a list"),
        ({"calibration": unreadable()}, "calibration, batch 0: OSError: no disk$"),
        (
            {"calibration": [X, X.numpy()]},
            "batch 1 is a ndarray; a batch is a tensor or",
        ),
        ({"calibration": [{}]}, "batch 0 is an empty mapping$"),
        ({"calibration": [{"x": 3}]}, "batch 0, 'x' is a int; a batch is"),
        ({"calibration": [{3: X}]}, "batch 0, 3 is a Tensor; a batch is .* names"),
        ({"calibration": [X, X / 0]}, "batch 1 holds NaN or inf$"),
        ({"calibration": [{"x": X / 0}]}, "batch 0, 'x' holds NaN or inf$"),
        ({"calibration": [X[:0]]}, r"batch 0 has shape \(0, 3\): it has no examples$"),
        ({"calibration": [X[0, 0]]}, r"has shape \(\): it has no examples$"),
        ({"evaluation": [X]}, "evaluation, batch 0 is no pair of a batch and its targ"),
        ({"evaluation": [(X, Y, Y)]}, "batch 0 is no pair"),
        ({"evaluation": [(X.numpy(), Y)]}, "evaluation, batch 0 is a ndarray"),
        (
            {"mask": failing},
            "calibration, batch 0: mask failed with LookupError: first$",
        ),
        (
            {"mask": lambda x: x.numpy()},
            "mask returned a ndarray, not a tensor or None",
        ),
        (
            {"mask": lambda x: torch.ones(3)},
            r"batch 0: mask has shape \(3,\); its first axis must be the 4 examples$",
        ),
        ({"mask": lambda x: torch.tensor(1)}, r"mask has shape \(\)"),
        ({"mask": lambda x: -x[:, 0]}, "mask must hold finite numbers from 0$"),
        ({"mask": lambda x: x[:, 0] / 0}, "mask must hold finite numbers from 0$"),
        ({"mask": lambda x: x[:, 0] < 0}, "by its mask no position of calibration"),
    ],
)
def test_data_that_cannot_be_used(load: Any, parts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(**parts)
    assert str(caught.value).startswith(f"data {__name__}:given")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (failing, "batch 0: score failed with LookupError: first$"),
        (lambda o, t: o, r"score has shape \(4, 2\); expected \(4,\), one number per"),
        (lambda o, t: o.sum(), r"score has shape \(\); expected \(4,\)"),
        (
            lambda o, t: torch.ones(4),
            r"batch 1: score has shape \(4,\); expected \(3,\)",
        ),
        (lambda o, t: t.double().log(), "score of example 0 is -inf$"),
        (lambda o, t: o[:, 0] * float("nan"), "score of example 0 is nan$"),
        (lambda o, t: "good", "score failed with "),
    ],
)
def test_scores_that_cannot_be_used(load: Any, score: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        score_network(network(), load(score=score))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 2), "training mode"),
        (
            nn.Linear(4, 2).eval(),
            "evaluation, batch 0: Linear cannot be run on it: mat1",
        ),
        (
            nn.Threshold(0, float("nan")).eval(),
            "batch 0: the network's outputs hold NaN",
        ),
    ],
)
def test_networks_that_do_not_fit(load: Any, model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score_network(model, load())


@pytest.mark.parametrize(
    ("model", "spec", "layers"), [("mlp", "digits", 3), ("encoder", "texts", 13)]
)
def test_the_example(model: str, spec: str, layers: int) -> None:
    if spec == "digits":
        pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    module = load_network(f"docs.example_data:{model}").module
    data = load_data(f"docs.example_data:{spec}")

    def quantized(bits: int, solver: str, **options: Any) -> QuantizedNetwork:
        return quantize_network(
            module,
            data.calibration,
            bits=bits,
            solver=solver,
            progress=False,
            **options,
        )

    def score(network: nn.Module) -> float:
        return float(score_network(network, data).mean())

    lattice = "lattice[elites=1,num_sweeps=10]"
    three, two = (quantized(bits, lattice, mask=data.mask) for bits in (3, 2))
    alone = Parts(inputs=False, residual=False, bias=False, trust=False, guard=False)
    nearest = quantized(2, "nearest", parts=alone)
    assert len(two.layers) == layers
    full = score(module)
    assert full > 0.9
    assert score(three.network) > full - 0.03
    assert score(two.network) > full - 0.04
    assert score(nearest.network) < score(two.network) - 0.01
    # Padding counts where no mask is given.
    unmasked = quantized(2, lattice)
    same = [
        np.array_equal(unmasked.layers[name].codes, layer.codes)
        for name, layer in two.layers.items()
    ]
    assert all(same) == (data.mask is None)
