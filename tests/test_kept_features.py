"""Features of a frozen encoder: kept once, bounded, and trained on as images would be."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import hintseg
from hintseg.config.loader import load_config
from hintseg.config.run import RunConfig
from hintseg.data.dataset import PhotoDataset, collate
from hintseg.data.kept import FeatureDataset
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import RunError
from hintseg.features.cache import FeatureCache, place
from hintseg.methods.method import Method
from hintseg.nn.backbones import Backbone
from hintseg.nn.plain_vit import PlainVit, is_plain_vit
from hintseg.pipeline.kept import Kept, keep
from hintseg.registry import METHODS, resolve
from hintseg.training.watch import Watch
from hintseg.types import Features, Hints, Photo, Progress, Tags
from made import given, of, rand
from small_runs import QUICK, typed, write_squares

VIT = {"name": "vit_tiny_patch16_224", "weights": "random", "freeze": "all"}
RESNET = {"name": "resnet10t", "weights": "random", "freeze": "all", "levels": 4, "output_stride": 16}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    """A cache of its own, and vision transformers of four narrow blocks."""
    monkeypatch.setenv("HINTSEG_CACHE", str(tmp_path / "cache"))
    made, small = timm.create_model, {"depth": 4, "embed_dim": 48, "num_heads": 3}
    monkeypatch.setattr(
        timm, "create_model", lambda name, **own: made(name, **({**small, **own} if is_plain_vit(name) else own))
    )
    return FeatureCache()


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Photos of 64 x 96 pixels, of which the first two have one name."""
    random = np.random.default_rng(0)
    found: list[Photo] = []
    for id in ("a/same", "b/same", "c"):
        path = tmp_path / "photos" / f"{id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(path)
        found.append(Photo(id, path, Hints(Tags.complete({1 + len(found) % 2}, 2))))
    return found


def config() -> RunConfig:
    return load_config("cam", ["trainer.precision=32-true", "trainer.accelerator=cpu"], data={"path": "photos"})


def build(name: str, backbone: dict[str, Any]) -> Method:
    torch.manual_seed(0)
    kind: type[Method] = resolve("method", name, METHODS)
    return kind(kind.Config.model_validate({"backbone": backbone}), 2, True).eval()


def kept_of(method: Method, photos: list[Photo]) -> Kept:
    return given(keep(method, photos, config(), Watch()))


def image_of(photo: Photo) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(photo.path))).permute(2, 0, 1)[None].float() / 255


@torch.no_grad()
def all_of(encoder: object, image: torch.Tensor) -> list[torch.Tensor]:
    """The levels, and where the class token looks if there is one."""
    if isinstance(encoder, PlainVit):
        levels, attention = encoder.attended(image)
        return [*levels, attention]
    found: list[torch.Tensor] = of(Backbone, encoder)(image)
    return found


@pytest.mark.parametrize("backbone", [VIT, RESNET], ids=["vit", "resnet"])
def test_what_is_kept_is_what_the_encoder_gives(photos: list[Photo], backbone: dict[str, Any]) -> None:
    method = build("cam", backbone)
    kept = kept_of(method, photos)
    for photo in photos:
        found, image = given(kept.read(photo)), image_of(photo)
        levels, mirrored = (all_of(method.backbone, side) for side in (image, image.flip(3)))
        for level, own, twin in zip(found, levels, mirrored, strict=True):
            assert level.dtype == torch.float16
            torch.testing.assert_close(level.float(), torch.cat([own, twin]), rtol=1e-3, atol=1e-3)


def test_features_are_made_once_and_photos_of_one_name_do_not_meet(
    photos: list[Photo], cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build("cam", VIT)
    kept = kept_of(method, photos)
    assert cache.usage().files == 3
    assert not torch.equal(given(kept.read(photos[0]))[0], given(kept.read(photos[1]))[0])

    def never(*_: object) -> None:
        raise AssertionError("the encoder was asked again")

    with monkeypatch.context() as patched:
        patched.setattr(type(method.backbone), "forward", never)
        kept_of(method, photos)
    other = build("cam", VIT)
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1e-3)  # type: ignore[union-attr]
    kept_of(other, photos)
    assert cache.usage().files == 6, "other weights are another network"


def test_a_damaged_file_is_made_again(photos: list[Photo], cache: FeatureCache) -> None:
    method = build("cam", VIT)
    kept = kept_of(method, photos)
    whole = given(kept.read(photos[0]))[0]
    path = cache._path(kept.keys[photos[0].id])
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    for damaged in (bytes(content), bytes(content[:40]), b""):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"features of photo a/same are gone or damaged.*--resume"):
            kept.read(photos[0])
        assert torch.equal(given(kept_of(method, photos).read(photos[0]))[0], whole)


def test_the_oldest_go_first_and_the_limit_holds(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "small")
    for age, key in enumerate("abcd"):
        cache.write(key * 4, [rand(2, 8, 10, 10)])
        os.utime(cache._path(key * 4), (1000 + age, 1000 + age))
    one = cache.usage().bytes // 4
    cache.touch(["aaaa"])
    cache.limit = 2 * one + one // 2
    assert [key for key in "abcd" if cache.read(key * 4) is not None] == ["a", "d"]
    for key in "efgh":
        cache.write(key * 4, [rand(2, 8, 10, 10)])
    cache.trim()
    assert cache.usage().bytes <= cache.limit
    assert not list(cache.folder.rglob("*.part"))


def test_where_space_is_short_images_are_trained_on(
    photos: list[Photo], cache: FeatureCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.limit = 100
    assert keep(build("cam", VIT), photos, config(), Watch()) is None
    assert "training on images instead; `hintseg cache --limit` gives more space" in caplog.text


@pytest.mark.parametrize("name", ["cam", "vwe", "deeplabv2", "segformer_head", "lgsa"])
@pytest.mark.parametrize("backbone", [VIT, RESNET], ids=["vit", "resnet"])
def test_training_on_whole_photos_is_that_on_images(photos: list[Photo], name: str, backbone: dict[str, Any]) -> None:
    """Square photos that fill the crop: the same chance mirrors both, and nothing else differs but float16."""
    square = []
    for photo in photos:
        path = photo.path.with_suffix(".bmp")
        Image.open(photo.path).crop((0, 0, 64, 64)).save(path)
        square.append(replace(photo, path=path))
    method = build(name, backbone)
    mask = np.random.default_rng(1).integers(0, 3, (64, 64)).astype(np.uint8)
    images = PhotoDataset(square, 2, TrainingTransform(64, (1.0, 1.0)), lambda _: mask)
    kept = kept_of(method, square)
    features = FeatureDataset(square, 2, kept.read, kept.strides, 64, lambda _: mask)
    flips = 0
    for epoch in range(4):
        images.set_epoch(epoch)
        features.set_epoch(epoch)
        one, other = (collate([data[i] for i in range(3)]) for data in (images, features))
        flips += int((given(one.targets.pixels) != torch.from_numpy(mask)).flatten(1).any(dim=1).sum())
        assert torch.equal(given(one.targets.pixels), given(other.targets.pixels))
        assert torch.equal(one.targets.windows, other.targets.windows)
        assert one.images.shape == other.images.shape
        for a, b in zip(
            method.losses(one, Progress(0, 1)).values(), method.losses(other, Progress(0, 1)).values(), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)
    assert 0 < flips < 12, "both kinds were seen"


def test_crops_are_cut_alike_out_of_features_and_labels(photos: list[Photo]) -> None:
    """Features that say which column and row of the photo they are of, and labels that say the same."""
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    grid = torch.stack([y, x])
    pair = torch.stack([grid, grid.flip(2)])
    finer = pair.repeat_interleave(2, 2).repeat_interleave(2, 3)
    labels = (y * 6 + x).repeat_interleave(16, 0).repeat_interleave(16, 1).byte().numpy()
    for crop in (48, 64, 96, 128):
        data = FeatureDataset(photos, 2, lambda _: (finer, pair), (8, 16), crop, lambda _: labels)
        for epoch in range(6):
            data.set_epoch(epoch)
            item = data[0]
            fine, coarse = of(Features, item.image).levels
            pixels = given(item.pixels)
            assert coarse.shape[-1] * 16 == fine.shape[-1] * 8 == pixels.shape[0] == crop
            for level, stride in ((coarse, 16), (fine, 8)):
                said = (level[0, 0] * 6 + level[0, 1]).repeat_interleave(stride, 0).repeat_interleave(stride, 1)
                known = pixels != 255
                assert torch.equal(said[known], pixels[known].float())
            x0, y0, x1, y1 = item.window.tolist()
            inside = torch.zeros(crop, crop, dtype=torch.bool)
            inside[y0:y1, x0:x1] = True
            assert torch.equal(inside, pixels != 255)
            assert (x1 - x0, y1 - y0) == (min(crop, 96), min(crop, 64))
            assert item.tags_known.tolist() == [label in pixels for label in (1, 2)]  # cells of the photo's first row


def test_methods_that_look_at_images_are_given_images(photos: list[Photo]) -> None:
    for name, settings in (("irn", RESNET), ("cam", RESNET | {"freeze": "norm"}), ("cam", RESNET | {"keep": False})):
        assert keep(build(name, settings), photos, config(), Watch()) is None
    kind: type[Method] = resolve("method", "deeplabv2", METHODS)
    scaled = kind(kind.Config.model_validate({"backbone": RESNET, "scales": (1.0, 0.5)}), 2, True)
    assert keep(scaled, photos, config(), Watch()) is None


def test_a_run_decodes_photos_once_and_goes_on_with_what_is_kept(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data")
    whole = (data / "JPEGImages/photo 0.png").read_bytes()
    (data / "JPEGImages/photo 0.png").write_bytes(whole[: len(whole) // 2])
    own = ["backbone.freeze=all", "backbone.output_stride=16", "refine=null", "segment.rounds=2", "trainer.pictures=0"]
    run = hintseg.train(data, tmp_path / "run", recipe="cam", settings=[*QUICK, *own])
    assert FeatureCache().usage().files >= 7
    kinds = {(row["stage"], row["kind"]) for row in run.metrics}
    assert {("localize", "seed"), ("segment", "segmentation")} <= kinds
    shutil.rmtree(tmp_path / "cache")
    again = hintseg.train(data, tmp_path / "again", recipe="cam", settings=[*QUICK, *own])
    for part in ("localize/model.safetensors", "segment/model.safetensors", "segment/rounds/1/model.safetensors"):
        assert (run.path / part).read_bytes() == (again.path / part).read_bytes()


def test_the_command_shows_bounds_and_clears(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("ab12", [rand(2, 3, 4, 5)])
    shown = typed("cache")
    assert shown.returncode == 0
    assert f"place: {place()}" in shown.stdout
    assert "features: 1 files, 0.0 MB of at most 8.6 GB" in shown.stdout
    assert "of at most 20.0 GB" in typed("cache", "--limit", "20GB").stdout
    assert FeatureCache().limit == 20 * 10**9
    assert "deleted: 1 files" in typed("cache", "--clear").stdout
    assert cache.read("ab12") is None
    refused = typed("cache", "--limit", "much")
    assert refused.returncode == 2
    assert "a number with KB, MB, GB or TB is needed" in refused.stderr
    monkeypatch.delenv("HINTSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert place() == Path("/somewhere/hintseg")
