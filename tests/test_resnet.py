"""ResNets: the published parameter counts, torchvision's function, and a keyed initialisation."""

import pytest
import torch
import torchvision

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


@pytest.mark.parametrize(("architecture", "width", "classes", "channels", "parameters"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(
    architecture: str, width: int, classes: int, channels: int, parameters: int
) -> None:
    """Acceptance check 1: from the closed form and from the built model."""
    model = build_model(architecture, width, classes=classes, channels=channels, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert count_parameters(architecture, width, classes=classes, channels=channels) == parameters


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "linear"])
@pytest.mark.parametrize(("width", "classes", "channels"), [(1, 2, 1), (3, 7, 2), (5, 100, 3)])
def test_the_closed_form_holds_at_any_width(architecture: str, width: int, classes: int, channels: int) -> None:
    model = build_model(architecture, width, classes=classes, channels=channels, seed=0)
    counted = count_parameters(architecture, width, classes=classes, channels=channels)
    assert counted == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_with_torchvisions_weights_it_is_torchvisions_network(architecture: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = torchvision.models.get_model(architecture, weights=None)
        images = torch.randn(2, 3, 64, 64)
    model = build_model(architecture, 64, classes=1000, channels=3, seed=0)
    model.load_state_dict(reference.state_dict(), strict=True)
    # Batch statistics in place of the initial 0 and 1, so that evaluation mode tests them as well.
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images))
        torch.testing.assert_close(model.eval()(images), reference.eval()(images))


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
