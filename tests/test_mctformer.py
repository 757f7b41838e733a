"""MCTformer: maps and scores against the published numbers and plain loops; any size, little memory, training."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import hintseg
from hintseg.cam import multi_scale, normalise
from hintseg.config.auto import Facts, resolve_fit
from hintseg.config.loader import load_config
from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, HintsegWarning, WeightsError
from hintseg.losses.classification import multi_label_soft_margin
from hintseg.methods.mctformer import MctConfig, MctFormer
from hintseg.nn import hub
from hintseg.nn.vit import ClassTokenVit, VitConfig
from hintseg.training.weights import load_weights, save_weights
from hintseg.types import Progress
from made import batch_of, given, of, rand
from published import mctformer_weights, reference

TINY = VitConfig(weights="random", output_stride=8, depth=2, width=24, heads=3)
STEM = {"name": "resnet10t", "weights": "random", "output_stride": 8}
HYBRID = TINY.model_copy(update={"stem": BackboneConfig.model_validate(STEM)})
PROGRESS = Progress(0, 10)


def make(classes: int = 3, **settings: object) -> MctFormer:
    """A tiny one whose attention is far from even: at the start all tokens look everywhere alike."""
    torch.manual_seed(0)
    method = MctFormer(MctConfig.model_validate({"backbone": TINY} | settings), classes, True).eval()
    for block in method.backbone.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.4)
    return method


# --- the published numbers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> tuple[MctFormer, dict[str, Tensor]]:
    """The published network, loaded by name, and its numbers."""
    state = mctformer_weights()
    config = MctConfig(backbone=VitConfig(weights="random", depth=4, width=48, heads=3))
    method = MctFormer(config, 5, True).eval()
    method.backbone.pos_embed = nn.Parameter(state["pos_embed"])  # for images of 64 pixels
    named = {name if name.startswith("head.") else f"backbone.{name}": value for name, value in state.items()}
    missing, unexpected = method.load_state_dict(named, strict=False)
    assert set(missing) == {"backbone.mean", "backbone.std", "prior.offset"}
    assert not unexpected
    method.backbone.mean.zero_()  # its input is normalised already
    method.backbone.std.fill_(1)
    return method, reference("mct")


@torch.no_grad()
def test_scores_and_fused_maps_equal_the_published_ones(published: tuple[MctFormer, dict[str, Tensor]]) -> None:
    method, data = published
    classes, patches = method.backbone(data["x"])
    torch.testing.assert_close(classes.mean(dim=2), data["cls_logits"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(method.head(patches).mean(dim=(2, 3)), data["patch_logits"], rtol=1e-3, atol=1e-6)
    out = method.backbone.attention(data["x"], layers=3)
    torch.testing.assert_close(out.class_to_patch.view(2, 5, 4, 4), data["cam_transcam"], rtol=1e-3, atol=1e-6)
    patch_maps = torch.relu(method.head(out.patches))
    torch.testing.assert_close(patch_maps, data["cam_patchcam"], rtol=1e-3, atol=1e-6)
    fused = out.class_to_patch.view_as(patch_maps) * patch_maps
    torch.testing.assert_close(fused, data["cam_fused"], rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_a_photo_that_is_not_square_equals_the_published_one(published: tuple[MctFormer, dict[str, Tensor]]) -> None:
    method, data = published
    out = method.backbone.attention(data["x2"], layers=3)
    torch.testing.assert_close(out.classes.mean(dim=2), data["cls_logits2"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(out.affinity, data["patch_attn2"].sum(dim=0), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(method.fused_maps(data["x2"], layers=3), data["refined2"], rtol=1e-3, atol=1e-7)


# --- plain versions -------------------------------------------------------------------------------------------------


def stored_attention(method: MctFormer, images: Tensor) -> Tensor:
    """Attention of every head of every layer, (layers, B, heads, T, T): what the network must not keep."""
    found: list[Tensor] = []

    def watch(block: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        qkv = block.get_submodule("attn.qkv")(block.get_submodule("norm1")(args[0]))
        query, key, _ = qkv.view(*qkv.shape[:2], 3, 3, -1).permute(2, 0, 3, 1, 4)
        found.append((query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1))

    hooks = [block.register_forward_hook(watch) for block in method.backbone.blocks]
    method.backbone(images)
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_averaged_attention_equals_stored_attention(layers: int) -> None:
    method, images = make(), rand(2, 3, 40, 56)
    stored = stored_attention(method, images)
    out = method.backbone.attention(images, layers=layers)
    assert stored.std(dim=2).max() > 0.1  # heads differ, so an average says something
    torch.testing.assert_close(out.class_to_patch, stored[-layers:].mean(dim=2).sum(dim=0)[:, :3, 3:])
    torch.testing.assert_close(out.affinity, stored.mean(dim=2).sum(dim=0)[:, 3:, 3:])
    classes, patches = method.backbone(images)  # the fused kernel of the training pass
    torch.testing.assert_close(out.classes, classes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.patches, patches, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_maps_equal_plain_loops() -> None:
    method, images = make(attention_layers=1), rand(1, 3, 24, 32)
    stored = stored_attention(method, images).mean(dim=2)[:, 0]  # (layers, T, T)
    patch_maps = method.head(method.backbone(images)[1])[0].flatten(1)
    assert 0 < (patch_maps > 0).sum() < patch_maps.numel()
    expected = torch.zeros(3, 12)
    for k in range(3):
        fused = [float(stored[-1, k, 3 + j]) * max(float(patch_maps[k, j]), 0.0) for j in range(12)]
        for i in range(12):
            expected[k, i] = sum(float(layer[3 + i, 3 + j]) * fused[j] for layer in stored for j in range(12))
    fused_maps = method.fused_maps(images, layers=1)[0].flatten(1)
    torch.testing.assert_close(fused_maps, expected, rtol=1e-4, atol=1e-7)
    plain = make(attention_layers=1, patch_affinity=False).fused_maps(images, layers=1)[0].flatten(1)
    torch.testing.assert_close(plain, stored[-1, :3, 3:] * torch.relu(patch_maps), rtol=1e-4, atol=1e-7)
    maps = method.class_maps(images)[0].flatten(1)
    torch.testing.assert_close(maps, expected - expected.amin(dim=1, keepdim=True), rtol=1e-3, atol=1e-6)


def test_losses_are_those_of_class_tokens_and_patches() -> None:
    method, images, tags = make(), rand(2, 3, 40, 56), torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    method.prior.measure([(torch.tensor([[1.0, 0, 0], [1, 1, 0]]), torch.ones(2, 3, dtype=torch.bool))])
    classes, patches = method.backbone(images)
    offset = method.prior.offset
    expected = {
        "loss_class": multi_label_soft_margin(classes.mean(dim=2) + offset, tags),
        "loss_patch": multi_label_soft_margin(method.head(patches).mean(dim=(2, 3)) + offset, tags),
    }
    torch.testing.assert_close(method.losses(batch_of(images, tags), PROGRESS), expected)


# --- sizes, memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (33, 90), (5, 9)])
@torch.no_grad()
def test_any_size_gives_maps(size: tuple[int, int]) -> None:
    method = make()
    maps = method.class_maps(rand(1, 3, *size))
    assert maps.shape == (1, 3, *(max(1, round(side / 8)) for side in size))
    assert maps.isfinite().all()
    assert maps.min() == 0


@torch.no_grad()
def test_positions_are_interpolated_between_grids() -> None:
    method = make()
    count = method.backbone.cls_token.shape[1]
    ramp = torch.linspace(0, 1, 28).repeat(28, 1).flatten()  # the named network's grid at patch 8: it rises with x
    method.backbone.pos_embed[:, count:] = ramp[:, None]
    method.backbone.patch_embed.proj.weight.zero_()
    method.backbone.patch_embed.proj.bias.zero_()
    tokens, grid = method.backbone._embed(rand(1, 3, 80, 160))
    positions = tokens[0, count:, 0].view(grid)
    assert grid == (10, 20)
    torch.testing.assert_close(positions, positions[:1].expand(10, -1), rtol=0, atol=1e-5)
    torch.testing.assert_close(positions[0, 2:18], (torch.arange(2, 18) + 0.5) / 20, rtol=0, atol=0.03)


def test_maps_of_scales_and_flips_are_merged() -> None:
    method, images = make(), rand(2, 3, 48, 64)
    merged = multi_scale(method.class_maps, images, scales=(1.0, 0.5), flip="sum", size=(12, 16))
    mirrored = multi_scale(method.class_maps, images.flip(3), scales=(1.0, 0.5), flip="sum", size=(12, 16))
    assert merged.shape == (2, 3, 12, 16)
    torch.testing.assert_close(mirrored.flip(3), merged, rtol=1e-3, atol=1e-5)
    normalised = normalise(merged, torch.tensor([[1.0, 0, 1], [1, 1, 0]]))
    assert normalised.amax() <= 1
    assert normalised[0, 1].max() == 0


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive at once, at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        import weakref

        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                key = storage._cdata
                if key not in self.alive:
                    self.alive[key] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, key, None)
        self.most = max(self.most, sum(self.alive.values()))
        return result


@torch.no_grad()
def test_no_map_of_every_head_and_layer_is_kept() -> None:
    backbone = VitConfig(weights="random", output_stride=8, depth=6, width=24, heads=6)
    method, images = make(backbone=backbone), rand(1, 3, 160, 160)
    one = 4 * 403**2  # bytes of one map of 3 class tokens and 400 patches
    with Largest() as tensors:
        method.raw_maps(images)
    assert tensors.most < 6 * one  # 36 maps if all were stored


# --- weights --------------------------------------------------------------------------------------------------------


def test_learned_weights_are_copied_to_every_class_token_or_start_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    save_file(net.state_dict(), tmp_path / "vit.safetensors", {"mean": "[0.1, 0.2, 0.3]"})
    config = VitConfig(name="vit_tiny_patch16_224", weights=str(tmp_path / "vit.safetensors"))
    vit = ClassTokenVit(config, 4)
    assert vit.pretrained
    torch.testing.assert_close(vit.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(vit.cls_token, net.cls_token.expand(-1, 4, -1))
    torch.testing.assert_close(vit.pos_embed[:, :4], net.pos_embed[:, :1].expand(-1, 4, -1))
    torch.testing.assert_close(vit.pos_embed[:, 4:], net.pos_embed[:, 1:])
    torch.testing.assert_close(vit.blocks[11].mlp.fc2.weight, net.blocks[11].mlp.fc2.weight)
    apart = ClassTokenVit(config.model_copy(update={"token_noise": 0.5}), 4)
    noise = (apart.cls_token - net.cls_token)[0]
    assert noise.std().item() == pytest.approx(0.5 * (net.cls_token + net.pos_embed[:, :1]).std().item(), rel=0.1)
    assert (noise[0] - noise[1]).std() > noise.std()
    torch.testing.assert_close(apart.pos_embed, vit.pos_embed)


@pytest.mark.parametrize(("stride", "close"), [(8, 0.12), (32, 1e-4)])
@torch.no_grad()
def test_learned_weights_are_resampled_to_patches_of_another_size(tmp_path: Path, stride: int, close: float) -> None:
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    nn.init.normal_(net.patch_embed.proj.weight, std=0.05)
    ramp = torch.linspace(0, 1, 14)[None, :, None].repeat(14, 1, 192)  # positions grow from left to right
    net.pos_embed[:, 1:] = ramp.view(1, 196, 192)
    save_file(net.state_dict(), tmp_path / "vit.safetensors")
    names = {"name": "vit_tiny_patch16_224", "weights": str(tmp_path / "vit.safetensors")}
    config = VitConfig.model_validate(names | {"output_stride": stride})
    vit = ClassTokenVit(config, 2)
    at_16, resampled = (
        proj(torch.full((1, 3, side, side), 0.7)).flatten()
        for proj, side in ((net.patch_embed.proj, 16), (vit.patch_embed.proj, stride))
    )
    assert (at_16 - resampled).abs().max() < close * at_16.abs().max()
    side = 224 // stride
    rows = vit.pos_embed[0, 2:, 0].view(side, side)
    assert torch.allclose(rows, rows[:1].expand(side, -1), atol=1e-3)
    assert (rows.diff(dim=1) > -0.01).all()
    assert rows[0, 0] < 0.1 < 0.9 < rows[0, -1]


def test_random_class_tokens_differ_and_come_with_a_warning_if_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ClassTokenVit(TINY, 3).cls_token[0]
    assert (tokens[0] - tokens[1]).abs().max() > 0
    made = timm.create_model

    def offline(name: str, pretrained: bool = False, **settings: object) -> nn.Module:
        if pretrained:
            raise OSError("no network")
        return of(nn.Module, made(name, depth=1, **settings))

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(hub, "check_reachable", lambda: None)
    with pytest.warns(HintsegWarning, match="could not be had \\(no network\\)"):
        assert not ClassTokenVit(VitConfig(), 2).pretrained
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassTokenVit(VitConfig(weights="random"), 2)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(2, 3, 3, 3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(WeightsError, match="belongs to another network"):
        ClassTokenVit(VitConfig(name="vit_tiny_patch16_224", weights=str(tmp_path / "resnet.safetensors")), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet18"}, "'resnet18' is no plain vision transformer"),
        (
            {"name": "deit_tiny_distilled_patch16_224"},
            "has 1 more tokens beside it .registers, or one for dist",
        ),
        ({"name": "vit_small_patch14_reg4_dinov2"}, "has 4 more tokens beside it"),
        ({"name": "vit_base_patch16_siglip_224", "depth": 1}, "has no class token; set this stage's backbone.name"),
        ({"name": "vit_small_patch16_dinov3"}, "its blocks are others, or its positions rotary"),
        ({"name": "eva02_tiny_patch14_224"}, "its blocks are others, or its positions rotary"),
        ({"name": "no_such_vit"}, "unknown network"),
        ({"freeze": "early"}, "set freeze=none and levels=1"),
        ({"levels": 4}, "set freeze=none and levels=1"),
        ({"weights": "pretrained", "depth": 3}, "leave out backbone.depth, width and heads"),
        ({"width": 50, "heads": 3}, "backbone.width=50 and heads=3"),
        ({"weights": "pretrained", "stem": STEM}, "weights=pretrained were learned from pixels.*resnet10t sees"),
        ({"stem": STEM}, "'resnet10t' has 8 pixels per cell and a patch has 16; set backbone.output_stride"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, object], message: str) -> None:
    config = VitConfig.model_validate({"weights": "random"} | settings)
    with pytest.raises(ConfigError, match=message):
        ClassTokenVit(config, 2)


def test_trained_weights_are_built_again(tmp_path: Path) -> None:
    method, images = make(), rand(1, 3, 40, 48)
    save_weights(method, tmp_path / "model.safetensors", classes=("a", "b", "c"), background=True)
    again, _, _ = load_weights(tmp_path / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again.class_maps(images), method.class_maps(images))


# --- a convolutional network in front ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (41, 54)])
def test_a_stem_takes_the_place_of_the_patches(size: tuple[int, int]) -> None:
    method, images = make(backbone=HYBRID).requires_grad_(False), rand(2, 3, *size)
    grid = tuple(round(side / 8) for side in size)
    assert method.class_maps(images).shape == (2, 3, *grid)
    resized = nn.functional.interpolate(images, [8 * side for side in grid], mode="bilinear", align_corners=False)
    level = given(method.backbone.stem)(resized)[-1]
    proj = method.backbone.patch_embed.proj
    seen = torch.einsum("bchw,dc->bdhw", level, proj.weight[:, :, 0, 0]) + proj.bias[:, None, None]
    method.backbone.pos_embed.zero_()
    tokens, _ = method.backbone._embed(images)
    torch.testing.assert_close(tokens[:, 3:].transpose(1, 2).reshape(seen.shape), seen, rtol=1e-4, atol=1e-4)


def test_a_learned_stem_keeps_its_rate_and_the_transformer_is_a_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("resnet10t")
    state = {name: value for name, value in net.state_dict().items() if not name.startswith(("layer4.", "fc."))}
    save_file(state, tmp_path / "c4.safetensors")
    stem = BackboneConfig(name="resnet10t", weights=str(tmp_path / "c4.safetensors"))
    method = make(backbone=TINY.model_copy(update={"stem": stem, "output_stride": 16}))
    assert method.backbone.pretrained
    torch.testing.assert_close(given(method.backbone.stem).net.layer3[0].conv1.weight, net.layer3[0].conv1.weight)
    tokens = method.backbone.cls_token[0]
    assert (tokens[0] - tokens[1]).abs().max() > 0  # the transformer's own weights are random
    images = rand(4, 3, 64, 64)
    method.prepare([batch_of(images, torch.eye(4)[:, :3])])
    method.train()
    scaled = method.backbone.stem_scale(given(method.backbone.stem)(images)[-1])
    assert scaled.square().mean().sqrt().item() == pytest.approx(1, rel=0.01)
    method.eval()
    stem_group, *others = method.parameter_groups()
    assert {id(p) for p in stem_group.parameters} == {id(p) for p in given(method.backbone.stem).parameters()}
    assert not stem_group.head
    assert all(group.head for group in others)
    grouped = [id(p) for group in (stem_group, *others) for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())

    save_weights(method, tmp_path / "model.safetensors", classes=("a", "b", "c"), background=True)
    (tmp_path / "c4.safetensors").unlink()  # the saved file holds all, and only three stages
    again, _, _ = load_weights(tmp_path / "model.safetensors")
    images = rand(1, 3, 40, 48)
    with torch.no_grad():
        torch.testing.assert_close(again.class_maps(images), method.class_maps(images))


# --- training -------------------------------------------------------------------------------------------------------


def test_random_weights_learn_a_batch() -> None:
    torch.manual_seed(0)
    method = MctFormer(MctConfig(backbone=TINY), 2, True).train()
    images, tags = rand(4, 3, 32, 32) * 0.2, torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]])
    images[:, 0, 4:16, 4:16] += 0.7 * tags[:, :1, None]
    images[:, 2, 16:28, 12:28] += 0.7 * tags[:, 1:, None]
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.003)
    history = []
    for _ in range(60):
        losses = method.losses(batch_of(images, tags), PROGRESS)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    assert history[-1]["loss_class"] < history[0]["loss_class"] / 2
    assert history[-1]["loss_patch"] < history[0]["loss_patch"] / 2


def test_the_gradient_of_raw_maps_reaches_all_parts() -> None:
    method = make().train()
    method.raw_maps(rand(1, 3, 32, 48))[0, 0].sum().backward()
    for part in (
        method.head.weight,
        method.backbone.cls_token,
        method.backbone.pos_embed,
        method.backbone.patch_embed.proj.weight,
        *(block.attn.qkv.weight for block in method.backbone.blocks),
    ):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0
    # The patch map is not detached.
    only_head = torch.autograd.grad(method.raw_maps(rand(1, 3, 32, 48)).sum(), given(method.head.bias))[0]
    assert only_head.abs().sum() > 0


def test_raw_maps_are_those_of_all_layers_with_the_gradient_of_the_plain_version() -> None:
    method, images = make(attention_layers=1), rand(2, 3, 24, 32)
    pattern, wanted = rand(2, 3, 3, 4, seed=1), list(method.parameters())
    stored = stored_attention(method, images).mean(dim=2)
    fused = stored.sum(dim=0)[:, :3, 3:] * torch.relu(method.head(method.backbone(images)[1])).flatten(2)
    plain = (stored.sum(dim=0)[:, 3:, 3:] @ fused.transpose(1, 2)).transpose(1, 2).view(2, 3, 3, 4)
    maps = method.raw_maps(images)
    torch.testing.assert_close(maps, plain, rtol=1e-4, atol=1e-7)
    found = torch.autograd.grad((maps * pattern).sum(), wanted, allow_unused=True)
    expected = torch.autograd.grad((plain * pattern).sum(), wanted, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_parameter_groups_hold_every_parameter_once() -> None:
    method = make()
    stem, whole, positions, tokens, head = groups = method.parameter_groups()
    assert not stem.parameters
    assert sorted(id(p) for group in groups for p in group.parameters) == sorted(id(p) for p in method.parameters())
    assert tokens.weight_decay == positions.weight_decay == 0
    assert tokens.parameters == [method.backbone.cls_token]
    assert [group.head for group in (whole, positions, tokens, head)] == [False, False, True, True]


def test_auto_trains_learned_transformers_with_adamw() -> None:
    facts = Facts(photos=355, side=213, pretrained=True, gpu=False)
    assert resolve_fit(MctConfig(), facts).optimizer == "adamw"
    assert resolve_fit(MctConfig(), facts).lr == 0.0001


def test_one_class_and_bfloat16_are_finite() -> None:
    method = make(classes=1).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(batch_of(rand(2, 3, 32, 32), torch.ones(2, 1)), PROGRESS)
        with torch.no_grad():
            maps = method.eval().class_maps(rand(1, 3, 40, 56))
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
    assert maps.isfinite().all()
    assert maps.dtype == torch.float32


# --- the recipe -----------------------------------------------------------------------------------------------------


def test_the_published_settings_are_valid() -> None:
    config = load_config("paper/mctformer-voc12", data={"path": "VOC"})
    assert isinstance(config.localize, MctConfig)
    assert config.localize.backbone.name == "deit_small_patch16_224"
    assert config.localize.fit.lr == 5e-4 * 64 / 512


def test_recipe_end_to_end(shapes: Path, tmp_path: Path) -> None:
    settings = [
        "backbone.name=resnet10t",
        "backbone.weights=random",
        "backbone.output_stride=8",
        "trainer.workers=0",
        "trainer.precision=32-true",
        "localize.backbone.name=vit_tiny_patch16_224",
        "localize.backbone.output_stride=8",
        "localize.backbone.depth=2",
        "localize.backbone.width=24",
        "localize.backbone.heads=3",
        "localize.fit.epochs=2",
        "refine.cell=4",
        "refine.fit.epochs=1",
        "segment=null",
        *(f"{stage}.fit.{key}" for stage in ("localize", "refine") for key in ("batch_size=4", "crop=64")),
    ]
    run = hintseg.train(shapes, tmp_path / "run", recipe="mctformer", settings=settings)
    kinds = {(row["stage"], row["kind"], row["oracle"]) for row in run.metrics}
    assert {("localize", "seed", False), ("refine", "pseudo mask", False)} <= kinds
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["stages"]["localize"]["method"] == "mctformer"
    assert manifest["stages"]["refine"]["method"] == "affinitynet"
    assert len(list((run.path / "refine" / "labels").glob("*.png"))) == 8
    assert len(list((run.path / "refine" / "masks").glob("*.png"))) == 8
    header = (run.path / "refine" / "log.csv").read_text().splitlines()[0]
    assert header.endswith("affinity_positive,affinity_negative")
