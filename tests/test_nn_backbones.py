"""Backbones against timm's own networks: levels, weights from files, what is frozen, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, HintsegWarning, WeightsError
from hintseg.nn import hub
from hintseg.nn.backbones import Backbone
from made import given, of

CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}
"""Channels-last convolutions sum in another order than those of the network they are compared with."""


def build(name: str = "test_resnet", weights: Path | str = "random", **settings: object) -> Backbone:
    return Backbone(BackboneConfig.model_validate({"name": name, "weights": str(weights)} | settings)).eval()


Net = TypeVar("Net", bound=nn.Module)


def lively(net: Net) -> Net:
    """Give a random timm network batch-norm statistics and scales that a mix-up would show."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in map(given, (module.weight, module.bias, module.running_mean)):
                values.data = torch.empty_like(values).uniform_(-0.5, 0.5, generator=generator)
            module.weight.data += 1
    return net.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def normalised(
    images: Tensor, mean: tuple[float, ...] = (0.485, 0.456, 0.406), std: tuple[float, ...] = (0.229, 0.224, 0.225)
) -> Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


# --- levels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_channels_and_strides_describe_the_levels(name: str, stride: int, images: Tensor) -> None:
    backbone = build(name, output_stride=stride)
    shapes = [tuple(level.shape) for level in backbone(images)]
    assert shapes == [(2, c, 64 // s, 64 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    assert backbone.strides[-1] == stride


def test_levels_equal_timms_feature_network(tmp_path: Path, images: Tensor) -> None:
    full = lively(timm.create_model("test_resnet"))
    torch.save(full.state_dict(), tmp_path / "net.pth")
    backbone = build(weights=tmp_path / "net.pth", output_stride=32)
    features = timm.create_model("test_resnet", features_only=True).eval()
    features.load_state_dict(full.state_dict(), strict=False)
    for ours, timms in zip(backbone(images), features(normalised(images, (0.5,) * 3, (0.5,) * 3)), strict=True):
        torch.testing.assert_close(ours, timms, **CLOSE)


def test_fewer_levels_are_the_finest(images: Tensor) -> None:
    assert [level.shape[1] for level in build(levels=2)(images)] == build().channels[:2]


def test_last_level_of_a_pre_activation_network_has_its_norm(tmp_path: Path, images: Tensor) -> None:
    full = lively(timm.create_model("resnetv2_18", num_classes=0, output_stride=16))
    torch.save(full.state_dict(), tmp_path / "net.pth")
    levels = build("resnetv2_18", tmp_path / "net.pth")(images)
    torch.testing.assert_close(levels[-1], full.forward_features(normalised(images, (0.5,) * 3, (0.5,) * 3)), **CLOSE)
    assert (levels[-1] >= 0).all()
    assert (levels[-2] < 0).any()


def test_network_cut_by_its_file_gets_the_norm_of_the_next_stage(
    tmp_path: Path, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    full = lively(timm.create_model("resnetv2_18", num_classes=0))
    closing = "stages.3.blocks.0.norm1."
    state = {k: v for k, v in full.state_dict().items() if not k.startswith("stages.3") or k.startswith(closing)}
    save_file(state, tmp_path / "cut.safetensors")
    with caplog.at_level(logging.INFO, "hintseg"):
        backbone = build("resnetv2_18", tmp_path / "cut.safetensors")
    assert "4 of 5 feature levels kept" in caplog.text
    assert backbone.config.levels == len(backbone.channels) == 4

    seen: dict[str, Tensor] = {}
    full.stages[3].blocks[0].norm1.register_forward_hook(lambda module, given, result: seen.update(c4=result))
    full(normalised(images, (0.5,) * 3, (0.5,) * 3))
    torch.testing.assert_close(backbone(images)[-1], seen["c4"], **CLOSE)

    again = Backbone(backbone.config.model_copy(update={"weights": "random"}))
    again.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(again.eval()(images)[-1], seen["c4"], **CLOSE)


def test_a_cut_file_of_half_precision_brings_its_own_normalisation(tmp_path: Path, images: Tensor) -> None:
    full = lively(timm.create_model("resnetv2_18", num_classes=0))
    closing = "stages.3.blocks.0.norm1."
    kept = {k: v for k, v in full.state_dict().items() if not k.startswith("stages.3") or k.startswith(closing)}
    kept = {k: v.half() if v.ndim == 4 else v for k, v in kept.items()}
    full.load_state_dict(kept, strict=False)
    mean, std = (0.45, 0.42, 0.38), (0.28, 0.27, 0.26)
    save_file(kept, tmp_path / "cut.safetensors", {"mean": json.dumps(mean), "std": json.dumps(std)})
    backbone = build("resnetv2_18", tmp_path / "cut.safetensors")
    seen: dict[str, Tensor] = {}
    full.stages[3].blocks[0].norm1.register_forward_hook(lambda module, given, result: seen.update(c4=result))
    with torch.no_grad():
        full(normalised(images, mean, std))
        levels = backbone(images)
    assert backbone.pretrained
    assert backbone.strides == [2, 4, 8, 16]
    assert levels[-1].dtype == torch.float32
    torch.testing.assert_close(levels[-1], seen["c4"], **CLOSE)


def test_network_of_inverted_residuals_equals_timms(tmp_path: Path, images: Tensor) -> None:
    full = lively(timm.create_model("mobilenetv2_035", num_classes=0))
    save_file(full.state_dict(), tmp_path / "net.safetensors")
    backbone = build("mobilenetv2_035", tmp_path / "net.safetensors")
    features = timm.create_model("mobilenetv2_035", features_only=True, output_stride=16).eval()
    features.load_state_dict(full.state_dict(), strict=False)
    with torch.no_grad():
        for ours, timms in zip(backbone(images), features(normalised(images)), strict=True):
            torch.testing.assert_close(ours, timms, **CLOSE)


# --- weight files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_wrappers_and_prefixes_are_unwrapped(tmp_path: Path, images: Tensor, wrapper: str | None, prefix: str) -> None:
    full = timm.create_model("test_resnet")
    state = {prefix + name: value for name, value in full.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "net.pth")
    backbone = build(weights=tmp_path / "net.pth")
    assert torch.equal(backbone.net.layer4[0].conv1.weight, full.layer4[0].conv1.weight)


def test_mean_and_std_come_from_the_file(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, tmp_path / "net.safetensors", {"mean": "[0.1, 0.2, 0.3]", "std": "[0.4, 0.5, 0.6]"})
    backbone = build(weights=tmp_path / "net.safetensors")
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_missing_and_unexpected_tensors_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = timm.create_model("test_resnet").state_dict()
    del state["layer2.0.bn1.weight"], state["layer2.0.bn1.bias"]
    torch.save(state, tmp_path / "net.pth")
    with caplog.at_level(logging.INFO, "hintseg"):
        build(weights=tmp_path / "net.pth")
    assert "2 not in the file, left as they were: layer2.0.bn1.bias, layer2.0.bn1.weight" in caplog.text
    assert "2 in the file that the network does not have, not used: fc.weight, fc.bias" in caplog.text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("test_convnext", "belongs to another network: none of its"),
        ("resnet10t", r"conv1.1.weight: file \(24,\), network \(16,\)(.|\n)*and 65 more"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, other: str, message: str) -> None:
    torch.save(timm.create_model(other).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=message):
        build(weights=tmp_path / "other.pth")


def test_weights_of_a_shallower_network_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(WeightsError, match="16 convolutions of 'resnet34' are not in it"):
        build("resnet34", tmp_path / "resnet18.pth")


def test_more_levels_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("layer4")}, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"first 4 of 5 feature levels.*backbone.levels=5 needs more"):
        build(weights=tmp_path / "cut.pth", levels=5)


class Payload:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("ran",)


def test_loading_runs_no_code_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Payload()}, "evil.pth")
    with pytest.raises(WeightsError, match="cannot be read as network weights"):
        build(weights="evil.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize(("name", "content"), [("a.pth", b"no weights"), ("a.safetensors", b"\0" * 20), ("b.pth", b"")])
def test_broken_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as network weights"):
        build(weights=tmp_path / name)


def test_missing_file_names_the_choices() -> None:
    with pytest.raises(WeightsError, match="no weight file 'pretraind'; did you mean 'pretrained'"):
        build(weights="pretraind")


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("No pretrained weights exist")])
def test_failed_download_warns_and_goes_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **settings: int) -> nn.Module:
        if pretrained:
            raise error
        return of(nn.Module, create(name, **settings))

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(hub, "check_reachable", lambda: None)
    with pytest.warns(HintsegWarning, match=f"'test_resnet' could not be had .{error}.*random weights"):
        backbone = build(weights="pretrained")
    assert not backbone.pretrained
    assert backbone.config.freeze == "none"
    with pytest.raises(WeightsError, match=r"could not be had .*freeze=all trains nothing of it; give a local file"):
        build(weights="pretrained", freeze="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not build(weights="random").pretrained


# --- settings that cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet5O"}, "unknown network 'resnet5O'; did you mean 'resnet50'"),
        ({"name": "resnet18.nowhere"}, "cannot build 'resnet18.nowhere'"),
        ({"name": "vit_tiny_patch16_224"}, "images of 224 x 224 pixels only"),
        ({"name": "ghostnet_100", "output_stride": 16}, "32 pixels per cell.*backbone.output_stride=16"),
        ({"levels": 6}, "has 5 feature levels, backbone.levels=6 asks for more"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**settings)


def test_network_with_its_own_stride_is_taken_where_it_fits() -> None:
    assert build("ghostnet_100", output_stride=32).strides[-1] == 32
    assert build("ghostnet_100", output_stride=16, levels=4).strides[-1] == 16


# --- freezing -------------------------------------------------------------------------------------------------------


def test_early_stops_the_gradient_before_the_last_two_levels(images: Tensor) -> None:
    backbone = build(freeze="early").train()
    sum(level.sum() for level in backbone(images)).backward()
    moved = {name.split(".")[1] for name, p in backbone.named_parameters() if p.grad is not None}
    assert moved == {"layer3", "layer4"}


@pytest.mark.parametrize(("freeze", "kept"), [("none", False), ("norm", True), ("early", True)])
def test_frozen_batch_norm_keeps_its_statistics(images: Tensor, freeze: str, kept: bool) -> None:
    backbone = build(freeze=freeze).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(images)
    same = all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert same == kept
    assert not any(m.training for m in backbone.eval().modules())


@pytest.mark.parametrize("name", ["test_resnet", "resnetv2_18", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("levels", [None, 3])
def test_every_trained_parameter_gets_a_gradient(name: str, levels: int | None, images: Tensor) -> None:
    # Distributed training waits for all of them.
    backbone = build(name, freeze="none", levels=levels).train()
    sum(level.square().sum() for level in backbone(images)).backward()
    assert [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.requires_grad for p in backbone.last_norm.parameters())


def test_auto_freezes_only_real_weights(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "net.pth")
    assert build().config.freeze == "none"
    assert build(weights=tmp_path / "net.pth").config.freeze == "early"
