"""Which network and which weights a run begins with: `auto`, the hub without a network, and the localizer's own."""

from __future__ import annotations

import socket
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import hintseg
from hintseg.config.loader import load_config
from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, HintsegWarning
from hintseg.nn import choose as choosing
from hintseg.nn import hub
from hintseg.nn.backbones import Backbone
from hintseg.nn.choose import Machine, choose
from hintseg.pipeline.backbone import settle
from hintseg.training.watch import Watch
from small_runs import QUICK, TINY, write_squares

LAPTOP, CARD = Machine(None, 2, 16.0), Machine(24.0, 8, 64.0)


def unreachable() -> None:
    raise OSError("no connection to hub: none here")


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub whose name is found and that never answers, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub, "PATIENCE", 0.3)
    monkeypatch.setattr(socket, "create_connection", lambda *_: time.sleep(3))


@pytest.mark.usefixtures("silent_hub")
def test_a_hub_that_does_not_answer_is_given_up_at_once() -> None:
    began = time.monotonic()
    with pytest.warns(HintsegWarning, match=r"no connection to huggingface.co within 0.3 s\). The network starts from"):
        network = Backbone(BackboneConfig(name="resnet10t", weights="pretrained"))
    assert time.monotonic() - began < 2.5  # it never waits for the connection itself, nor asks again
    assert not network.pretrained


@pytest.mark.usefixtures("silent_hub")
def test_weights_in_the_cache_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    own = timm.create_model("resnet10t", pretrained=False)
    facts = own.pretrained_cfg
    folder = Path(constants.HF_HUB_CACHE) / f"models--{facts['hf_hub_id'].replace('/', '--')}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert not hub.is_cached(facts)
    save_file(
        {name: value.contiguous() for name, value in own.state_dict().items()},
        folder / "snapshots/abc/model.safetensors",
    )
    assert hub.is_cached(facts)
    with warnings.catch_warnings():
        warnings.simplefilter("error", HintsegWarning)
        network = Backbone(BackboneConfig(name="resnet10t", weights="pretrained"))
    assert network.pretrained
    assert torch.equal(network.state_dict()["net.conv1.0.weight"], own.state_dict()["conv1.0.weight"])
    assert not constants.HF_HUB_OFFLINE  # as it was


def test_the_way_to_the_hub_is_the_proxy_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Connection:
        def close(self) -> None: ...

    def connect(place: Any, _: float) -> Connection:
        asked.append(place)
        return Connection()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(hub, "proxy_bypass", lambda _: False)
    for proxies in ({}, {"https": "http://proxy.example:3128"}, {"https": "proxy.example:3128"}):
        monkeypatch.setattr(hub, "getproxies", lambda proxies=proxies: proxies)
        hub.check_reachable()
    assert asked == [("huggingface.co", 443), ("proxy.example", 3128), ("proxy.example", 3128)]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set"):
        hub.check_reachable()


def test_auto_goes_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "is_cached", lambda _: False)
    assert choose("pretrained", LAPTOP, lambda: None) == ("mobilenetv2_100", "for 2 cores and 16 GiB without a GPU")
    assert choose("pretrained", CARD, lambda: None) == ("resnet50", "for a GPU of 24 GiB")
    assert choose("pretrained", Machine(4.0, 8, 64.0), lambda: None)[0] == "mobilenetv2_100"
    assert choose("pretrained", Machine(None, 32, 128.0), lambda: None)[0] == "resnet50"
    assert choose("random", CARD, unreachable)[0] == "resnet18"


def test_auto_goes_by_what_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "is_cached", lambda facts: "resnet50" in facts["hf_hub_id"])
    assert choose("pretrained", CARD, unreachable) == (
        "resnet50",
        "for a GPU of 24 GiB; its weights are on this machine",
    )
    assert choose("pretrained", LAPTOP, lambda: None)[0] == "mobilenetv2_100"
    name, why = choose("pretrained", LAPTOP, unreachable)
    assert name == "resnet50"
    assert "those of 'mobilenetv2_100' are not, and there is no connection to hub" in why


def test_auto_knows_the_network_of_a_file(tmp_path: Path) -> None:
    for name in ("mobilenetv2_100", "resnet18"):
        state = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
        save_file(
            {f"backbone.net.{key}": value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors"
        )
        assert choose(str(tmp_path / "w.safetensors"), CARD)[0] == name
    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="cannot tell the network of"):
        choose(str(tmp_path / "w.safetensors"), CARD)


def test_auto_is_settled_once_and_kept(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data")
    words = [*QUICK[1:], "backbone.name=auto", "refine=null", "segment=null"]
    lines: list[str] = []

    class Lines(Watch):
        def line(self, text: str) -> None:
            lines.append(text)

    hintseg.train(data, tmp_path / "run", recipe="cam", settings=words, labels=data / "tags.csv", watch=Lines())
    assert "backbone: auto is 'resnet18': a shallow network, as it starts from random weights" in lines
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["backbone"]["name"] == kept["localize"]["backbone"]["name"] == "resnet18"
    again = load_config("cam", ["backbone.name=auto", "backbone.weights=random"], data={"path": str(data)})
    earlier = load_config("cam", ["backbone.name=resnet34", "backbone.weights=random"], data={"path": str(data)})
    settled, reasons = settle(again, earlier)
    assert settled.backbone.name == "resnet34"  # the run's own, whatever this machine would choose
    assert reasons == []


def test_later_stages_begin_with_what_the_localizer_learned(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data")
    words = [*QUICK, "refine.backbone.weights=localize", "segment.backbone.weights=localize", "refine.fit.lr=1e-12"]
    words += ["segment.fit.lr=1e-12", "segment.backbone.freeze=none", "refine.backbone.freeze=none"]
    run = hintseg.train(data, tmp_path / "run", recipe="demo", settings=words, labels=data / "tags.csv")
    learned = load_file(run.path / "localize" / "model.safetensors")
    for stage in ("refine", "segment"):
        state = load_file(run.path / stage / "model.safetensors")
        weights = [name for name in state if name.startswith("backbone.net.") and state[name].dim() == 4]
        assert len(weights) > 5
        assert all(torch.allclose(state[name], learned[name], atol=1e-6) for name in weights)
    assert "weights: localize" in (run.path / "config.yaml").read_text()
    saved = (run.path / "segment" / "model.safetensors").read_bytes()
    assert str(tmp_path).encode() not in saved  # equal runs make equal files, wherever they lie


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backbone.weights=localize"], "the localizer has learned nothing yet"),
        (["localize=null", "refine=null", "segment.backbone.weights=localize"], "there is no localizer"),
    ],
)
def test_weights_of_a_localizer_that_is_not_there(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config("cam", [*TINY[:1], *words], data={"path": "photos"})
