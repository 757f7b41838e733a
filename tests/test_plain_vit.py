"""Plain vision transformers as feature networks: equal to timm's own, of any size, read where the settings say."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, WeightsError
from hintseg.methods.cam import Cam, CamConfig
from hintseg.methods.vwe import Vwe, VweConfig
from hintseg.nn.encoders import build_encoder, encoder_groups
from hintseg.nn.plain_vit import PlainVit, is_plain_vit
from hintseg.registry import METHODS, resolve
from hintseg.types import Progress
from made import batch_of, of

SMALL = {"depth": 4, "embed_dim": 48, "num_heads": 3}
FAMILIES = (
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_siglip_224",
    "eva02_tiny_patch14_224",
    "vit_pe_core_tiny_patch16_384",
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transformer has four narrow blocks: what is tested does not depend on their size."""
    made = timm.create_model

    def create(name: str, **settings: Any) -> Any:
        return made(name, **({**SMALL, **settings} if is_plain_vit(name) else settings))

    monkeypatch.setattr(timm, "create_model", create)


def config(name: str = "vit_tiny_patch16_224", **changes: Any) -> BackboneConfig:
    return BackboneConfig(**{"name": name, "weights": "random", **changes})


def vit(name: str = "vit_tiny_patch16_224", **changes: Any) -> PlainVit:
    net = build_encoder(config(name, **changes))
    assert isinstance(net, PlainVit)
    return net


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_timm(name: str) -> None:
    torch.manual_seed(0)
    patch = 14 if "patch14" in name else 16
    net = vit(name, output_stride=patch, blocks=(2, 4)).eval()
    plain = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    plain.load_state_dict(net.net.state_dict(), strict=False)
    images = torch.rand(2, 3, 6 * patch, 4 * patch)
    wanted = plain.forward_intermediates(
        (images - net.mean) / net.std, indices=[1, 3], norm=True, intermediates_only=True
    )
    (level,) = net(images)
    assert level.shape == (2, 48, 6, 4)
    torch.testing.assert_close(level, (wanted[0] + wanted[1]) / 2)
    (side_by_side,) = build_encoder(config(name, output_stride=patch, blocks=(2, 4), join="concat"))(images)
    assert side_by_side.shape == (2, 96, 6, 4)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_attention_is_that_of_the_blocks(name: str) -> None:
    torch.manual_seed(0)
    net = vit(name, output_stride=16).eval()
    images = torch.rand(2, 3, 64, 48)
    levels, affinity = net.affinity(images, blocks=2)
    torch.testing.assert_close(levels[-1], net(images)[-1], atol=1e-5, rtol=1e-4)
    assert affinity.shape == (2, 12, 12)
    torch.testing.assert_close(affinity.sum(dim=2), torch.ones(2, 12))
    again, factors = net.features(images)
    torch.testing.assert_close(again[-1], net(images)[-1])
    assert factors.query.shape == factors.key.shape == (2, 2 * 3, 12, 16)
    if name == "deit_tiny_patch16_224":  # without rotary positions the factors are the attention
        prefix = net.net.num_prefix_tokens
        block = net.net.blocks[-1]
        seen: list[torch.Tensor] = []
        hook = block.attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        net(images)
        hook.remove()
        qkv = block.attn.qkv(seen[0]).reshape(2, -1, 3, 3, 16).permute(2, 0, 3, 1, 4)
        maps = (qkv[0] @ qkv[1].transpose(2, 3) * 16**-0.5).softmax(dim=3).mean(dim=1)[:, prefix:, prefix:]
        torch.testing.assert_close(net.affinity(images, blocks=1)[1], maps / maps.sum(dim=2, keepdim=True))
        torch.testing.assert_close(factors.maps()[:, 3:], (qkv[0] @ qkv[1].transpose(2, 3))[:, :, prefix:, prefix:])


@pytest.mark.parametrize(("stride", "grid"), [(8, (8, 11)), (14, (5, 6)), (16, (4, 6)), (32, (2, 3))])
def test_a_cell_covers_the_stride_whatever_the_patch(stride: int, grid: tuple[int, int]) -> None:
    for name in ("vit_tiny_patch16_224", "vit_small_patch14_dinov2"):
        (level,) = build_encoder(config(name, output_stride=stride))(torch.rand(1, 3, 64, 90))
        assert level.shape[2:] == grid


def test_a_pyramid_has_finer_levels_from_earlier_blocks() -> None:
    net = build_encoder(config(levels=4))
    levels = net(torch.rand(1, 3, 64, 96))
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 24), (16, 24), (8, 12), (4, 6)]
    assert net.strides == [4, 4, 8, 16]
    assert net.channels == [48] * 4
    assert net.config.levels == 4


def test_what_is_frozen_has_no_gradient_and_nothing_else_lacks_one() -> None:
    for freeze, trained in (
        ("none", {"blocks.0", "blocks.1", "blocks.2", "norm", "cls_token", "pos_embed", "patch_embed"}),
        ("early", {"blocks.1", "blocks.2", "norm"}),
        ("all", set()),
    ):
        net = vit(freeze=freeze, blocks=(3,))
        net(torch.rand(1, 3, 32, 32))[-1].pow(2).sum().backward() if trained else None
        found = {n for n, p in net.net.named_parameters() if p.requires_grad}
        assert {".".join(n.split(".")[: 2 if n.startswith("blocks") else 1]) for n in found} == trained
        assert all(dict(net.net.named_parameters())[name].grad is not None for name in found)
    assert not any("norm" in n for n, p in vit(freeze="norm").net.named_parameters() if p.requires_grad)


def test_rates_fall_from_block_to_block() -> None:
    net = build_encoder(config(layer_decay=0.5, blocks=(4,)))
    groups = encoder_groups(net)
    assert [group.lr_factor for group in groups] == [1, 0.5, 0.25, 0.125, 0.0625]
    assert sum(len(group.parameters) for group in groups) == len(list(net.parameters()))
    assert len(encoder_groups(build_encoder(config()))) == 1


def test_weights_of_a_file_are_resampled_to_the_network(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=96)
    file = tmp_path / "weights.safetensors"
    save_file(plain.state_dict(), file)
    net = vit(weights=str(file), blocks=(4,)).eval()
    assert net.pretrained
    assert net.config.freeze == "early"
    for name, tensor in plain.blocks.state_dict().items():
        torch.testing.assert_close(net.net.blocks.state_dict()[name], tensor)
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, file)
    with pytest.raises(WeightsError):
        build_encoder(config(weights=str(file)))


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has 4 blocks, backbone\.blocks asks for 9"):
        build_encoder(config(blocks=(9,)))
    with pytest.raises(ConfigError, match="those of vision transformers, and 'resnet10t' is none"):
        build_encoder(config("resnet10t", blocks=(1,)))
    with pytest.raises(ConfigError, match="reads images alone"):
        build_encoder(config("mit_tiny"), extra=2)
    assert not is_plain_vit("resnet50")
    assert not is_plain_vit("no_such_network")


def test_extra_channels_start_from_zero() -> None:
    torch.manual_seed(0)
    net = build_encoder(config(), extra=2).eval()
    images = torch.rand(1, 3, 32, 32)
    none, some = net(images, torch.zeros(1, 2, 32, 32)), net(images, torch.rand(1, 2, 32, 32))
    torch.testing.assert_close(none[-1], some[-1])


def test_each_photo_may_have_a_size_of_its_own_under_autocast() -> None:
    net = build_encoder(config("vit_small_patch14_dinov2")).eval()
    for size in ((33, 47), (224, 224), (20, 300)):
        with torch.autocast("cpu", torch.bfloat16):
            (level,) = partial(net)(torch.rand(1, 3, *size))
        assert level.isfinite().all()


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.stage and name != "mctformer"])
def test_every_method_stands_on_a_plain_vit(name: str) -> None:
    torch.manual_seed(0)
    kind = resolve("method", name, METHODS)
    method = kind(kind.Config.model_validate({"backbone": config(levels=4).model_dump()}), 3, True).eval()
    images, tags = torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    pixels = torch.randint(0, 4, (2, 64, 64), dtype=torch.uint8)
    if name == "cfs":
        pixels = pixels.clamp(max=1)
    batch = batch_of(images, tags, pixels, boxes=(torch.tensor([[1.0, 8, 8, 40, 40]]),) * 2)
    method.prepare([batch])
    losses = method.losses(batch, Progress(90, 100))
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()


@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224"]
)
def test_the_class_token_looks_where_the_blocks_that_are_read_say(name: str) -> None:
    torch.manual_seed(0)
    net, images = vit(name, output_stride=16, blocks=(2, 3)).eval(), torch.rand(2, 3, 48, 80)
    prefix, rows = int(net.net.num_prefix_tokens), []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows.append(inputs[0][:, :, 0, prefix:].mean(dim=1) * inputs[0].shape[3])

    with torch.no_grad():
        levels, attention = net.attended(images)
        for block in list(net.net.blocks)[1:3]:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_pre_hook(look)
        assert torch.allclose(net(images)[-1], levels[-1], atol=1e-5)
    assert attention.shape == (2, 1, 3, 5)
    assert torch.allclose(attention.flatten(1), torch.stack(rows).mean(dim=0), atol=1e-4)


@pytest.mark.parametrize("method", ["cam", "vwe"])
def test_class_maps_follow_the_class_token_where_it_is_frozen_and_there_is_a_background(method: str) -> None:
    images = torch.rand(1, 3, 32, 48)

    def localizer(background: bool, freeze: str = "all", **changes: Any) -> Cam | Vwe:
        torch.manual_seed(0)
        network = config(freeze=freeze)
        made = (
            Cam(CamConfig(backbone=network, **changes), 2, background)
            if method == "cam"
            else Vwe(VweConfig(backbone=network, words=4, **changes), 2, background)
        )
        return made.eval()

    plain, looked = localizer(True, attention=False), localizer(True)
    with torch.no_grad():
        _, attention = of(PlainVit, plain.backbone).attended(images)
        maps = plain.class_maps(images)
        assert maps.max() > 0
        assert torch.allclose(looked.class_maps(images), maps * attention)
        assert torch.equal(localizer(False).class_maps(images), maps)
    assert not localizer(True, freeze="none").attends


def test_attention_needs_a_class_token() -> None:
    for name in ("resnet10t", "vit_base_patch16_siglip_224"):
        with pytest.raises(ConfigError, match=f"'{name}' has no class token"):
            Cam(CamConfig(backbone=config(name), attention=True), 2, True)
        with pytest.raises(ConfigError, match=f"'{name}' has no class token"):
            Vwe(VweConfig(backbone=config(name), attention=True), 2, True)
        assert not Cam(CamConfig(backbone=config(name, freeze="all")), 2, True).attends
