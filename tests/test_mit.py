"""Mix Transformer: published features and attention, weights by every name, what is frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, HintsegWarning, WeightsError
from hintseg.nn import mit
from hintseg.nn.affinity import AffinityHead, gather_window, spread, window
from hintseg.nn.backbones import Backbone
from hintseg.nn.mit import Attention, Mit, build_encoder, official_names
from made import given
from published import afa_weights, reference


def tiny(**settings: int | str) -> Mit:
    torch.manual_seed(0)
    return Mit(BackboneConfig.model_validate({"name": "mit_tiny", "weights": "random"} | settings)).eval()


def test_features_and_attention_equal_the_published_ones(tmp_path: Path) -> None:
    save_file(afa_weights(), tmp_path / "afa.safetensors")
    net = tiny(weights=str(tmp_path / "afa.safetensors"))
    data = reference("afa_net")
    with torch.no_grad():
        levels, attention = net.features(data["x"][:1] * net.std + net.mean)
    for i, level in enumerate(levels):
        torch.testing.assert_close(level, data[f"f{i}"], rtol=1e-3, atol=1e-5)
    last = torch.cat([data["attn6"], data["attn7"]], dim=1)
    torch.testing.assert_close(attention.maps(), last, rtol=1e-3, atol=1e-5)


def test_b1_has_the_published_number_of_parameters() -> None:
    net = Mit(BackboneConfig(name="mit_b1", weights="random"))
    assert sum(p.numel() for p in net.parameters()) == 13_151_424


@pytest.mark.parametrize(("stride", "last"), [(16, (4, 6)), (32, (2, 3))])
def test_last_stage_has_the_stride_asked_for(stride: int, last: tuple[int, int]) -> None:
    net = tiny(output_stride=stride)
    assert net.strides == [4, 8, 16, stride]
    assert net(torch.rand(1, 3, 64, 96))[-1].shape[2:] == last


def test_fused_attention_equals_the_plain_sum() -> None:
    net, x = tiny(), torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(1))
    layer = net.get_submodule("block4.0.attn")
    with torch.no_grad():
        out, query, key = layer(x, 3, 4)
        value = layer.get_submodule("kv")(x)[..., 64:].reshape(2, 12, 8, 8).transpose(1, 2)
        plain = torch.zeros(2, 12, 64)
        for head in range(8):
            for n in range(12):
                weights = (query[:, head, n, None] * key[:, head]).sum(-1) / 8**0.5
                plain[:, n, head * 8 : head * 8 + 8] = (weights.softmax(-1)[..., None] * value[:, head]).sum(1)
        torch.testing.assert_close(out, layer.get_submodule("proj")(plain))


def test_small_and_odd_photos_pass() -> None:
    assert [level.shape[2:] for level in tiny()(torch.rand(1, 3, 20, 33))] == [(5, 9), (3, 5), (2, 3), (2, 3)]


def hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return official weights under the names of Hugging Face's SegformerModel."""
    renamed = {}
    for name, tensor in state.items():
        head, number, rest = name[:-1].split(".")[0], 0, name
        if name.startswith("patch_embed"):
            number, rest = int(name[11]) - 1, name[13:].replace("norm", "layer_norm")
            renamed[f"segformer.encoder.patch_embeddings.{number}.{rest}"] = tensor
        elif name.startswith("norm"):
            renamed[f"segformer.encoder.layer_norm.{int(name[4]) - 1}.{name[6:]}"] = tensor
        else:
            assert head.startswith("block")
            rest = name[7:]
            for old, new in (
                ("attn.norm", "attention.self.layer_norm"),
                ("norm1", "layer_norm_1"),
                ("norm2", "layer_norm_2"),
                ("attn.q", "attention.self.query"),
                ("attn.kv", "attention.self.kv"),
                ("attn.sr", "attention.self.sr"),
                ("attn.proj", "attention.output.dense"),
                ("mlp.fc1", "mlp.dense1"),
                ("mlp.fc2", "mlp.dense2"),
            ):
                rest = rest.replace(old, new)
            full = f"segformer.encoder.block.{int(name[5]) - 1}.{rest}"
            if ".kv." in full:
                key, value = tensor.chunk(2)
                renamed[full.replace(".kv.", ".key.")], renamed[full.replace(".kv.", ".value.")] = key, value
            else:
                renamed[full] = tensor
    return renamed | {"classifier.weight": torch.zeros(3, 64)}


@pytest.mark.parametrize("rename", [dict, hugging_face, lambda s: {f"module.encoder.{k}": v for k, v in s.items()}])
def test_weights_load_by_every_name(rename: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path) -> None:
    state = {name: torch.randn_like(value) for name, value in tiny().state_dict().items()}
    save_file({k: v.contiguous() for k, v in rename(state).items()}, tmp_path / "w.safetensors")
    net = tiny(weights=str(tmp_path / "w.safetensors"))
    assert net.pretrained
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = {name: value.contiguous() for name, value in tiny().state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"wrong size\? set backbone.name"):
        Mit(BackboneConfig(name="mit_b0", weights=str(tmp_path / "w.safetensors")))
    state.pop("norm4.bias")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors are missing \(norm4.bias"):
        tiny(weights=str(tmp_path / "w.safetensors"))


def test_published_weights_are_loaded_and_their_licence_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = {name: torch.randn_like(v) for name, v in tiny().state_dict().items()}
    monkeypatch.setattr(mit, "_download", lambda name: hugging_face(state))
    net = tiny(weights="pretrained")
    assert torch.equal(net.get_parameter("norm4.bias"), state["norm4.bias"])
    assert "research" in caplog.text


def test_without_the_hub_the_network_starts_from_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(mit, "_download", offline)
    with pytest.warns(HintsegWarning, match=r"'mit_tiny' could not be had \(no route\)"):
        assert not tiny(weights="pretrained").pretrained


def test_frozen_norms_get_no_gradient() -> None:
    free, kept = tiny(), tiny(freeze="norm")
    assert all(p.requires_grad for p in free.parameters())
    frozen = {name for name, p in kept.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in kept.named_parameters() if "norm" in name}
    assert len(frozen) > 30


def test_impossible_settings_are_refused() -> None:
    for settings in ({"output_stride": 8}, {"levels": 3}, {"freeze": "early"}):
        with pytest.raises(ConfigError, match="4 levels"):
            tiny(**settings)


def test_encoder_is_chosen_by_its_name() -> None:
    assert isinstance(build_encoder(BackboneConfig(name="mit_tiny", weights="random")), Mit)
    assert isinstance(build_encoder(BackboneConfig(name="resnet10t", weights="random")), Backbone)


def test_names_without_a_counterpart_stay() -> None:
    assert list(official_names({"decode_head.bias": torch.zeros(1)})) == ["decode_head.bias"]


# --- affinity -------------------------------------------------------------------------------------------------------


def attention(cells: int, seed: int = 0) -> Attention:
    generator = torch.Generator().manual_seed(seed)
    return Attention(*(torch.randn(2, 16, cells, 4, generator=generator) for _ in range(2)))


def dense(values: Tensor, height: int, width: int, radius: int) -> Tensor:
    """Return windowed affinities (B, S, N) as (B, N, N), 0 outside the window."""
    near = window(height, width, radius, values.device)
    full = torch.zeros(len(values), height * width, height * width)
    for j in range(height * width):
        inside = near.inside[:, j]
        full[:, near.cells[inside, j], j] = values[:, inside, j]
    return full


@pytest.mark.parametrize("radius", [1, 2, 8])
def test_affinity_is_the_symmetrised_weighted_sum_of_raw_maps(radius: int) -> None:
    head, seen = AffinityHead(), attention(15)
    found = dense(head(seen, (3, 5), radius).detach(), 3, 5, radius)
    maps, weight = seen.maps(), head.project.weight.flatten()
    for i in range(15):
        for j in range(15):
            near = max(abs(i // 5 - j // 5), abs(i % 5 - j % 5)) <= radius
            value = ((maps[:, :, i, j] + maps[:, :, j, i]) * weight).sum(dim=1) + given(head.project.bias)
            torch.testing.assert_close(found[:, i, j], torch.sigmoid(value).detach() * near)


def test_spreading_equals_a_dense_product() -> None:
    values = torch.rand(2, 9, 12, generator=torch.Generator().manual_seed(3))
    scores = torch.rand(2, 3, 3, 4, generator=torch.Generator().manual_seed(4))
    full = dense(values, 3, 4, 1) ** 2
    full = full / (full.sum(dim=1, keepdim=True) + 0.1)
    torch.testing.assert_close(spread(scores, values, 1), (scores.flatten(2) @ full).view(2, 3, 3, 4))


def test_window_repeats_nothing_and_forgets_nothing() -> None:
    values = torch.arange(12).view(1, 3, 4)
    near, seen = window(3, 4, 1, values.device), gather_window(values, 1)
    assert sorted(seen[0, :, 5].tolist()) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert near.inside.sum(dim=0).view(3, 4).tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]


def test_spreading_equals_the_published_numbers() -> None:
    data = reference("afa_affinity")
    near = window(8, 10, 3, torch.device("cpu"))
    assert near.inside.sum() == data["mask"].sum()
    values = data["pred"].gather(1, near.cells.expand(2, -1, -1))
    for photo in range(2):
        present = [0, *(data["cls"][photo].nonzero()[:, 0] + 1).tolist()]
        maps = torch.cat([torch.full((1, 8, 10), 0.35), data["cams"][photo]])[present]
        found = spread(maps.softmax(dim=0)[None], values[photo][None], 3)[0]
        torch.testing.assert_close(found, data["prop"][photo][present], rtol=1e-4, atol=1e-6)


def test_published_file_holds_the_encoder_of_the_tiny_network() -> None:
    names = official_names(afa_weights())
    assert set(tiny().state_dict()) <= set(names)
