from pathlib import Path
from typing import Any

import pytest
import torch
from tests.learning.builders import COLOR, same, settings, untrained, weights
from torch import nn

from active_learning.errors import CheckpointError, SettingsError, UnknownNameError
from active_learning.learning.checkpoint import save_classifier
from active_learning.learning.networks import (
    build_network,
    for_inference,
    head,
    load_weights,
    resize_head,
)


def built(
    name: str = "small_cnn", *, n_classes: int = 3, width: int = 8, **preprocessing: Any
) -> nn.Module:
    network = {"name": name, "width": width}
    params = settings(network=network, preprocessing=preprocessing)
    return build_network(params.network, n_classes, params.preprocessing)


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def load(module: nn.Module, path: Path | str | None, name: str = "small_cnn") -> None:
    source = {"name": name, "weights": None if path is None else str(path)}
    params = settings(network=source)
    load_weights(module, params.network, params.preprocessing)


def split(module: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights of the body and of the head, which are the last two."""
    every = list(weights(module).items())
    return dict(every[:-2]), dict(every[-2:])


@pytest.mark.parametrize("side", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_network_sees_small_images_gray_and_color(
    side: int, channels: int
) -> None:
    shape: dict[str, Any] = COLOR if channels == 3 else {}
    params = settings(preprocessing={**shape, **square(side)})
    network = build_network(params.network, 5, params.preprocessing)

    logits = network(torch.rand(2, channels, side, side))

    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_16"])
def test_a_network_of_torchvision_gets_a_head_of_our_classes(name: str) -> None:
    params = settings(network={"name": name}, preprocessing={**COLOR, **square(32)})
    network = build_network(params.network, 5, params.preprocessing)

    logits = network(torch.rand(2, 3, 32, 32))
    logits.sum().backward()

    assert logits.shape == (2, 5)
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("smal_cnn", "small_cnn"), ("resnet-18", "resnet18"), ("vit_b16", "vit_b_16")],
)
def test_an_unknown_network_is_told_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean .*{meant!r}"):
        built(typo)


def test_a_network_of_torchvision_does_not_take_gray_images() -> None:
    with pytest.raises(SettingsError, match=r"set train\.preprocessing\.channels to 3"):
        built("resnet18")


@pytest.mark.parametrize(
    ("height", "width", "complaint"),
    [(32, 48, "takes square images, not 32 x 48"), (28, 28, "width to 32")],
)
def test_a_vision_transformer_does_not_take_every_size(
    height: int, width: int, complaint: str
) -> None:
    shape = {"height": height, "width": width, **COLOR}
    params = settings(network={"name": "vit_b_16"}, preprocessing=shape)

    with pytest.raises(SettingsError, match=complaint):
        build_network(params.network, 3, params.preprocessing)


def test_a_network_that_ends_in_no_linear_layer_is_refused() -> None:
    with pytest.raises(SettingsError, match="no linear layer to serve as its head"):
        built("squeezenet1_0", **COLOR)


def test_weights_of_a_file_replace_all_but_the_head(tmp_path: Path) -> None:
    theirs, ours = built(n_classes=7), built(n_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    _, head_before = split(ours)

    load(ours, tmp_path / "weights.pt")

    body, head = split(ours)
    assert same(body, split(theirs)[0])
    assert same(head, head_before)


def test_a_checkpoint_of_ours_is_a_file_of_weights_too(tmp_path: Path) -> None:
    classifier, ours = untrained(), built(n_classes=2)
    save_classifier(classifier, tmp_path / "challenger.ckpt")

    load(ours, tmp_path / "challenger.ckpt")

    assert same(split(ours)[0], split(classifier.network)[0])


def test_weights_of_another_shape_are_refused_and_the_first_is_named(
    tmp_path: Path,
) -> None:
    wide, narrow = built(width=8), built(width=5)
    torch.save(wide.state_dict(), tmp_path / "weights.pt")
    before = weights(narrow)

    with pytest.raises(CheckpointError) as refused:
        load(narrow, tmp_path / "weights.pt")

    assert f"the first is {next(iter(before))!r}" in str(refused.value)
    assert same(weights(narrow), before)


def test_weights_of_which_one_is_missing_are_refused(tmp_path: Path) -> None:
    module = built()
    tensors = dict(module.state_dict())
    lost = list(tensors)[2]
    del tensors[lost]
    torch.save(tensors, tmp_path / "weights.pt")

    with pytest.raises(CheckpointError, match=rf"^1 of .* the first is '{lost}'"):
        load(module, tmp_path / "weights.pt")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint '.*lost\.pt'"):
        load(built(), tmp_path / "lost.pt")


@pytest.mark.parametrize(
    "content",
    [{"a": 1}, {1: torch.ones(1)}, {"state_dict": [torch.ones(1)]}, [torch.ones(1)]],
    ids=["a number", "no name", "a list in it", "a list"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pt")

    with pytest.raises(CheckpointError, match=r"weights\.pt' holds"):
        load(built(), tmp_path / "weights.pt")


def test_no_weights_are_no_pretrained_weights() -> None:
    with pytest.raises(SettingsError, match="name a file"):
        load(built(), None)


def test_nobody_published_weights_of_the_small_network() -> None:
    with pytest.raises(SettingsError, match=r"set train\.network\.weights to a file"):
        load(built(), "DEFAULT")


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_a_wider_head_keeps_its_old_rows(name: str) -> None:
    network = built(name, **COLOR)
    body, head = split(network)

    resize_head(network, 5)

    new_body, new_head = split(network)
    assert same(new_body, body)
    for key, old in head.items():
        assert len(new_head[key]) == 5
        assert torch.equal(new_head[key][:3], old)


def test_a_head_of_the_right_size_stays_as_it_is() -> None:
    network = built(n_classes=3)
    before = weights(network)

    resize_head(network, 3)

    assert same(weights(network), before)


# --- for answers alone ---


def seen_something(name: str) -> nn.Module:
    """A network whose normalizations have moved away from where they began."""
    torch.manual_seed(0)
    network = built(name, **COLOR)
    for _ in range(3):
        network(torch.randn(8, 3, 32, 32) * 3 + 1)
    return network.eval()


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "mobilenet_v3_small"])
def test_a_network_for_inference_answers_the_same(name: str) -> None:
    network = seen_something(name)
    images = torch.randn(4, 3, 32, 32)

    faster = for_inference(network)

    torch.testing.assert_close(faster(images), network(images), atol=1e-5, rtol=1e-4)
    assert head(faster)[0] == head(network)[0]


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_a_network_for_inference_normalizes_in_its_convolutions(name: str) -> None:
    faster = for_inference(seen_something(name))

    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in faster.modules())


def test_making_a_network_for_inference_leaves_it_as_it_was() -> None:
    network = seen_something("small_cnn").train()
    before = weights(network)

    for_inference(network)

    assert network.training
    assert same(weights(network), before)


def test_a_network_that_cannot_be_traced_is_copied() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x) if x.sum() > 0 else self.head(-x)

    network, x = Moody(), torch.tensor([[-1.0, -2.0]])

    assert torch.equal(for_inference(network)(x), network(x))
