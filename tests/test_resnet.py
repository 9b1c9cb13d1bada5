"""ResNets: the published parameter counts, torchvision's function, and a keyed initialisation."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from search_spaces.architectures import ARCHITECTURES, count_parameters
from workers.resnet import build_model

PUBLISHED = [
    *[
        ("tiny-resnet", width, 10, 1, p)
        for width, p in [(1, 131), (2, 400), (4, 1382), (8, 5122), (16, 19706), (32, 77290)]
    ],
    ("cifar-resnet18", 64, 10, 3, 11_173_962),
    ("resnet18", 64, 1000, 3, 11_689_512),
    ("resnet34", 64, 1000, 3, 21_797_672),
    ("resnet50", 64, 1000, 3, 25_557_032),
    ("resnet101", 64, 1000, 3, 44_549_160),
]


def count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("architecture", "width", "classes", "channels", "parameters"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(
    architecture: str, width: int, classes: int, channels: int, parameters: int
) -> None:
    """Acceptance check 1: from the closed form and from the built model."""
    model = build_model(architecture, width, classes=classes, channels=channels, seed=0)
    assert count(model) == parameters
    assert count_parameters(architecture, width, classes=classes, channels=channels) == parameters


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "linear"])
@pytest.mark.parametrize(("width", "classes", "channels"), [(1, 2, 1), (3, 7, 2), (5, 100, 3)])
def test_the_closed_form_holds_at_any_width(architecture: str, width: int, classes: int, channels: int) -> None:
    model = build_model(architecture, width, classes=classes, channels=channels, seed=0)
    counted = count_parameters(architecture, width, classes=classes, channels=channels)
    assert counted == count(model)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_with_torchvisions_weights_it_is_torchvisions_network_bit_for_bit(
    architecture: str, memory_format: torch.memory_format, one_thread: None
) -> None:
    """Acceptance check 1: the same operations in the same order, so outputs, gradients and statistics are equal.

    Equal, not close: with the same memory format both call the same kernels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = torchvision.models.get_model(architecture, weights=None)
        images = torch.randn(2, 3, 64, 64).to(memory_format=memory_format)
    model = build_model(architecture, 64, classes=1000, channels=3, seed=0)
    model.load_state_dict(reference.state_dict(), strict=True)
    assert count(model) == count(reference)
    labels, outputs = torch.tensor([3, 997]), []
    for network in (model, reference):
        network.to(memory_format=memory_format)
        logits = network(images)
        cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        with torch.inference_mode():  # with the batch statistics just taken in, not the initial 0 and 1
            outputs.append((logits.detach(), network.eval()(images)))
    (trained, evaluated), (reference_trained, reference_evaluated) = outputs
    assert torch.equal(trained, reference_trained)
    assert torch.equal(evaluated, reference_evaluated)
    assert not torch.equal(trained, evaluated)
    assert_equal(gradients(model), gradients(reference))
    assert_equal(model.state_dict(), reference.state_dict())


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Not empty, and the same tensors under the same names, bit for bit."""
    assert found.keys() == expected.keys() != set()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_initialisation_depends_on_the_seed_alone_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    first = build_model("tiny-resnet", 8, classes=10, channels=1, seed=0).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again = build_model("tiny-resnet", 8, classes=10, channels=1, seed=0).state_dict()
    other = build_model("tiny-resnet", 8, classes=10, channels=1, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_initialisation_has_the_stated_scale() -> None:
    model = build_model("cifar-resnet18", 64, classes=100, channels=3, seed=0)
    state = model.state_dict()
    convolution = state["layer2.0.conv2.weight"]  # 128 outputs, 3x3
    assert convolution.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert state["fc.weight"].abs().max().item() == pytest.approx(512**-0.5, rel=0.01)
    assert state["fc.bias"].abs().max().item() <= 512**-0.5
    assert all((state[name] == 1).all() for name in state if name.endswith(("bn1.weight", "running_var")))
    assert all((state[name] == 0).all() for name in state if name.endswith(("bn1.bias", "running_mean")))
    assert model.training


def test_small_images_pass_through_every_stage() -> None:
    model = build_model("tiny-resnet", 2, classes=10, channels=1, seed=0)
    assert model(torch.zeros(4, 1, 8, 8)).shape == (4, 10)
    assert not any(isinstance(parameter, torch.nn.parameter.UninitializedParameter) for parameter in model.parameters())


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="gradient-flow"):
        build_model("linear", 100, classes=2, channels=1, seed=0)
    with pytest.raises(ValueError, match="must be one of"):
        build_model("resnet19", 64, classes=10, channels=3, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        build_model("tiny-resnet", 0, classes=10, channels=1, seed=0)
