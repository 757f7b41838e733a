"""MCTformer on learned transformers: patches of other sizes, CSD around it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from hintseg.losses.classification import multi_label_soft_margin
from hintseg.methods.mctformer import MctConfig, MctFormer
from hintseg.nn.vit import ClassTokenVit, VitConfig
from hintseg.types import Progress
from hintseg.wrappers.csd import Csd, CsdConfig
from made import batch_of, given, learned_vit, rand


@pytest.mark.parametrize(
    ("name", "patch"),
    [("vit_tiny_patch16_224", 16), ("vit_small_patch14_dinov2", 14), ("vit_base_patch16_clip_224", 16)],
)
def test_one_class_equals_timm(name: str, patch: Literal[14, 16]) -> None:
    torch.manual_seed(0)
    sizes = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 14 * patch}
    net = timm.create_model(name, num_classes=0, **sizes).eval()
    config = VitConfig(name=name, weights="random", depth=2, width=48, heads=3, output_stride=patch)
    vit = ClassTokenVit(config, 1).eval()
    vit.pos_embed = nn.Parameter(net.pos_embed.detach())  # of a grid of 14 x 14
    vit.load_state_dict(
        {name: value for name, value in net.state_dict().items() if name in vit.state_dict()}, strict=False
    )
    images = rand(1, 3, 14 * patch, 14 * patch)
    with torch.no_grad():
        classes, patches = vit(images)
        tokens = torch.cat([classes, patches.flatten(2).transpose(1, 2)], dim=1)
        expected = net.forward_features((images - vit.mean) / vit.std)
        torch.testing.assert_close(net.norm(tokens), expected, rtol=1e-4, atol=1e-4)


def test_patch_14_is_read_as_it_is_and_resampled_to_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **set: made(name, depth=2, embed_dim=48, num_heads=3, **set))
    torch.manual_seed(0)
    net = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224)
    save_file(net.state_dict(), tmp_path / "vit.safetensors")
    for stride in (14, 16, 8):
        names = {"name": "vit_small_patch14_dinov2", "weights": str(tmp_path / "vit.safetensors")}
        vit = ClassTokenVit(VitConfig.model_validate(names | {"output_stride": stride}), 3).eval()
        assert vit.pretrained
        out = vit.attention(rand(1, 3, 112, 70), layers=1)
        grid = (round(112 / stride), round(70 / stride))
        assert out.patches.shape[2:] == grid
        assert out.affinity.shape == (1, grid[0] * grid[1], grid[0] * grid[1])
        assert ((out.affinity.sum(dim=2) > 1) & (out.affinity.sum(dim=2) < 2)).all()  # two blocks, less what tokens get
        if stride == 14:
            torch.testing.assert_close(vit.patch_embed.proj.weight, net.patch_embed.proj.weight)
        torch.testing.assert_close(vit.blocks[1].ls1.gamma, net.blocks[1].ls1.gamma)


def test_csd_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"name": "vit_tiny_patch16_224", "output_stride": 8, "weights": learned_vit(tmp_path, monkeypatch)}
    method = MctFormer(MctConfig(backbone=VitConfig.model_validate(names)), 3, True)
    assert method.backbone.pretrained
    csd = Csd(method, CsdConfig(reliable=0.0, foreground=1.0, background=1.0)).train()
    photos, pixels = rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.uint8)
    pixels[:, 16:48, 16:48] = torch.tensor([1, 3])[:, None, None]
    source = batch_of(rand(1, 3, 64, 64, seed=1), torch.tensor([[1.0, 0, 0]]), pixels[:1])
    batch = batch_of(photos, torch.tensor([[1.0, 1, 0], [0, 0, 1]]), pixels, source=source)
    csd.prepare([batch])
    losses = csd.losses(batch, Progress(50, 100))
    assert set(losses) == {"loss_class", "loss_patch", "loss_fg", "loss_bg"}
    torch.stack(list(losses.values())).sum().backward()
    assert losses["loss_fg"] > 0
    for part in (method.backbone.cls_token, method.backbone.patch_embed.proj.weight, method.head.weight):
        assert part.grad is not None
        assert part.grad.isfinite().all()
        assert part.grad.abs().sum() > 0


def test_a_linear_readout_starts_as_the_mean_and_learns_at_the_rate_of_heads() -> None:
    backbone = VitConfig(weights="random", output_stride=8, depth=2, width=24, heads=3)
    made = []
    for readout in ("mean", "linear"):
        torch.manual_seed(0)
        made.append(MctFormer(MctConfig.model_validate({"backbone": backbone, "readout": readout}), 2, True).eval())
    batch = batch_of(rand(3, 3, 32, 32), torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
    plain, linear = (method.losses(batch, Progress(0, 1)) for method in made)
    torch.testing.assert_close(plain, linear)
    weights = given(made[1].readout)
    assert any(weights is one for one in made[1].parameter_groups()[-1].parameters)
    with torch.no_grad():
        weights[1] = 0  # that token says nothing, the other as before
    classes, _ = made[1].backbone(batch.images)
    scores = torch.stack([classes[:, 0].mean(dim=1), torch.zeros(3)], dim=1)
    expected = multi_label_soft_margin(scores, batch.targets.tags)
    torch.testing.assert_close(made[1].losses(batch, Progress(0, 1))["loss_class"], expected)
