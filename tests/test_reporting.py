from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hintseg.errors import RunError
from hintseg.reporting import write_pictures, write_report
from hintseg.store.maps import write_maps
from hintseg.store.masks import MaskStore, write_mask
from made import given

CLASSES = ["cow", "<script>alert(1)</script>", "$x^2", "sheep"]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def make_run(
    path: Path,
    *,
    stages: Sequence[str] = ("localize", "refine", "segment"),
    truth: bool = True,
    background: bool = True,
    classes: list[str] = CLASSES,
) -> Path:
    """Write a run folder as the pipeline would, with twenty training and eight validation photos."""
    rng = np.random.default_rng(0)
    photos, low = [], 0 if background else 1
    masks = {s: MaskStore(path / s / "masks", classes, background) for s in stages}
    for index in range(28):
        name = f"herd/{index:02d} & <b>" if index == 0 else f"{index:02d}"
        split = "train" if index < 20 else "val"
        label = 1 + index % len(classes)
        tags = [1, 4] if label == 4 else [] if index == 2 and background else [label]
        height, width = (90, 120) if index % 2 else (300, 400)
        y, x = np.mgrid[:height, :width] / height
        mask = np.full((height, width), low, np.uint8)
        for number, tag in enumerate(tags):
            mask[(x - 0.45 - 0.5 * number) ** 2 + (y - 0.5) ** 2 < 0.09] = tag
        mask[:4] = 255
        colours = rng.integers(60, 220, (len(classes) + 1, 3))
        rgb = colours[np.where(mask == 255, 0, mask)] + rng.normal(0, 12, (height, width, 3))
        file = path / "photos" / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(file)
        boxes = [[t, width * 0.1, 5.0, width * 0.7, height - 5.0] for t in tags[:1]]
        points = [[t, width * 0.4, height * 0.5] for t in tags]
        photos.append(
            {"id": name, "path": str(file), "split": split, "tags": tags, "boxes": boxes, "points": points}
            | {"scribbles": None, "truth": truth}
        )
        if truth:
            write_mask(path / "truth" / f"{name}.png", mask)
        if split == "train" and "localize" in stages:
            maps = np.stack([(mask == t) * (1 - y) for t in tags] or [0 * y])[:, ::4, ::4].clip(0, 1)
            write_maps(path / "localize" / "maps" / f"{name}.npz", tags, maps[: len(tags)])
        for stage, store in masks.items():
            if (stage == "segment") == (split == "val"):
                shift = int(rng.integers(0, 3 + height // 6)) // (2 if stage == "refine" else 1)
                seen = np.where(mask == 255, np.uint8(low), mask)  # masks are complete, unlike the truth
                store.write(name, np.roll(seen, shift, axis=1), quality=float(rng.random()))
    for stage, store in masks.items():
        store.finish()
        steps = np.arange(1200)
        rows = [
            f"{s},{s // 100},{0.01 * (1 - s / 1200):.5f},{2 * np.exp(-s / 300) + 0.2:.4f},"
            f"{np.exp(-s / 300):.4f},{np.exp(-s / 300) + 0.2:.4f}"
            for s in steps
        ]
        log = "\n".join(["step,epoch,lr,loss,classification,words", *rows, "1200,12,0.0,0.2,,"])
        (path / stage / "log.csv").write_text(log + "\n")
    write_json(path / "photos.json", photos)
    write_json(path / "metrics.json", metrics(stages, background, classes) if truth else [])
    if "localize" in stages and background:
        thresholds = [i / 100 for i in range(60)]
        miou = [0.65 - (t - 0.34) ** 2 for t in thresholds] if truth else None
        sweep = {"thresholds": thresholds, "miou": miou, "chosen": 0.27, "how": "chosen without ground truth"}
        write_json(path / "localize" / "sweep.json", sweep | {"oracle": 0.34 if truth else None})
    backbone = {"name": "resnet18", "weights": "random"}
    config = {"recipe": "vwe", "seed": 7, "backbone": backbone, "maps": {"scales": [1.0, 0.5], "flip": "max"}}
    config |= {"test": {"scales": [1.0], "flip": True, "crf": None}}
    config |= {stage: {"method": "vwe", "backbone": backbone, "fit": {"lr": 0.01}} for stage in stages}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    facts = {"method": "vwe", "done": True, "photos": 20, "steps": 1200}
    learns_from = "masks" if list(stages) == ["segment"] else "tags"
    data = {"name": "farm", "path": "farm", "format": "voc", "classes": classes, "background": background}
    manifest = {
        "hintseg": "0.1.0", "made_as": 1, "python": "3.11.4", "torch": "2.6", "lightning": "2.4", "seed": 7,
        "learns_from": learns_from, "data": data | {"notes": [], "plan": [], "hashes": {}},
        "stages": dict.fromkeys(reversed(stages), facts),
    }  # fmt: skip
    command = "\"hintseg train 'a & b' --out <run>\""
    ended = [f"2030-01-02,{stage},75.0,1234,,\n" for stage in stages]
    rows = ["when,what,seconds,peak_memory_mb,machine,command\n", f"2030-01-01,began,,,2 cores,{command}\n", *ended]
    (path / "history.csv").write_text("".join(rows))
    write_json(path / "manifest.json", manifest)
    return path


def metrics(stages: Sequence[str], background: bool, classes: list[str]) -> list[dict[str, object]]:
    kinds = {"localize": ("seed", 0.6123), "refine": ("pseudo mask", 0.7234), "segment": ("segmentation", 0.6543)}
    rows: list[dict[str, object]] = []
    for stage in stages:
        kind, miou = kinds[stage]
        values = [miou + 0.2, miou - 0.02, 0.11, None][: len(classes)]
        row: dict[str, object] = {
            "stage": stage,
            "kind": kind,
            "split": "val" if stage == "segment" else "train",
            "photos": 20,
        }
        row |= {"miou": miou, "iou": dict(zip(classes, values, strict=True)), "pixel_accuracy": 0.9, "oracle": False}
        row |= {"boundary_iou": 0.4, "threshold": None, "protocol": f"how the {kind} was made"}
        rows.append(row)
        if stage == "localize" and background:
            rows.append(row | {"oracle": True, "miou": 0.6479, "threshold": 0.34})
    return rows


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def edit_json(path: Path, change: Callable[..., Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def text_of(page: str) -> str:
    """The page's words, without tags, style and pictures."""
    body = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", body)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run = make_run(tmp_path_factory.mktemp("full") / "run")
    return run, write_report(run).read_text("utf-8")


def test_full_report_says_what_was_made_how_good_and_how_far_to_trust_it(full: tuple[Path, str]) -> None:
    text = text_of(full[1])
    assert (
        "From the tags of 20 training photos of farm, this run made seeds, pseudo masks and a segmentation model."
        in text
    )
    assert "Seeds reach 61.2 % mIoU on 20 train photos." in text
    assert "Pseudo masks reach 72.3 % mIoU" in text
    assert "The segmentation model reaches 65.4 % mIoU on 20 val photos." in text
    assert "on photos it has not seen, this is usable" in text
    assert "These classes fail in the segmentation (val): $x^2 (11.0 %)." in text
    assert "random weights" in text
    assert "seed 7" in text


def test_full_report_holds_settings_numbers_costs_and_origin(full: tuple[Path, str]) -> None:
    text = text_of(full[1])
    for wanted in ("vwe", "resnet18 with weights random", "multi-scale (1, 0.5)", "single scale (1)", "1200 steps"):
        assert wanted in text
    assert "0.27: chosen without ground truth. Ground truth would have chosen 0.34 (oracle" in text
    assert "how the pseudo mask was made" in text
    assert "1 min 15 s" in text
    assert "1,234 MB" in text
    assert "hintseg train &#39;a &amp; b&#39; --out &lt;run&gt;" in text
    assert "torch 2.6" in text
    assert "Tags cannot tell which pixels are which for sheep (never without cow)" in text
    assert "Fewer than 20 training photos" in text


def test_the_network_in_front_of_a_transformer_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    stem = {"name": "resnet50", "weights": "c4.pth"}
    config["localize"]["backbone"] = {"name": "vit_tiny", "weights": "random", "stem": stem}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = text_of(write_report(run).read_text("utf-8"))
    assert "backbone vit_tiny with weights random; stem resnet50 with weights c4.pth; rate 0.01" in text


def test_oracle_rows_stand_apart_and_never_lead(full: tuple[Path, str]) -> None:
    page = full[1]
    fair, oracle = page.split('<tbody class="oracle">')
    oracle = oracle.split("</tbody>")[0]
    assert "*oracle*" in oracle
    assert "64.8" in oracle
    assert "64.8" not in fair
    assert "61.2" not in oracle


def test_report_loads_nothing_and_trusts_no_name(full: tuple[Path, str]) -> None:
    page = full[1]
    assert not re.search(r"(?:src|href)=(?!\"data:)", page)
    assert not re.search(r"url\(|@import|<script", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "herd/00 &amp; &lt;b&gt;" in page
    assert len(page) < 8e6


def test_galleries_show_every_kind_of_picture_of_best_and_worst(full: tuple[Path, str]) -> None:
    page = full[1]
    training, validation = page.split("Validation photos")
    for caption in ("photo and hints", "class map of cow", "class map of sheep", "seed", "pseudo mask", "truth"):
        assert f"<figcaption>{caption}</figcaption>" in training
    assert "<figcaption>prediction</figcaption>" in validation
    assert "<figcaption>seed</figcaption>" not in validation
    scores = [float(v) for v in re.findall(r"<strong>best</strong>.*?mIoU ([\d.]+) %", training, flags=re.S)]
    worst = [float(v) for v in re.findall(r"<strong>worst</strong>.*?mIoU ([\d.]+) %", training, flags=re.S)]
    assert len(scores) == len(worst) == 3
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= max(worst)


def test_report_is_the_same_each_time(full: tuple[Path, str]) -> None:
    run, page = full
    assert write_report(run).read_text("utf-8") == page


def test_without_truth_no_accuracy_is_claimed(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path, truth=False)).read_text("utf-8")
    text = text_of(page)
    assert "No true masks were given, so accuracy is not known." in text
    assert "stated quality" in text
    assert "% mIoU" not in text
    assert "<figcaption>truth</figcaption>" not in page
    assert "0.27: chosen without ground truth." in text


def test_without_background_no_threshold_is_claimed(tmp_path: Path) -> None:
    text = text_of(write_report(make_run(tmp_path, background=False)).read_text("utf-8"))
    assert "None needed: there is no background" in text
    assert "none: every pixel belongs to a class" in text
    assert "background unlabelled" not in text
    assert "true negatives" not in text


def test_masks_that_leave_out_tagged_classes_are_named_without_truth(tmp_path: Path) -> None:
    run = make_run(tmp_path, truth=False)
    for photo in json.loads((run / "photos.json").read_text()):
        if photo["split"] == "train" and 4 in photo["tags"]:
            mask = np.array(Image.open(run / "refine" / "masks" / f"{photo['id']}.png"))
            write_mask(run / "refine" / "masks" / f"{photo['id']}.png", np.where(mask == 4, 0, mask).astype(np.uint8))
    text = text_of(write_report(run).read_text("utf-8"))
    assert "these have no pixel of the class in the pseudo mask: sheep (5 of 5)." in text
    for path in (run / "refine" / "masks").rglob("*.png"):
        write_mask(path, np.zeros_like(np.array(Image.open(path))))
    assert "Most pseudo masks are empty: 24 of 24 tags" in text_of(write_report(run).read_text("utf-8"))


def test_half_a_run_is_reported_as_such(tmp_path: Path) -> None:
    run = make_run(tmp_path, stages=("localize",))
    edit_json(run / "manifest.json", lambda m: m["stages"].update(refine={"done": False}))
    text = text_of(write_report(run).read_text("utf-8"))
    assert "this run made seeds." in text
    assert "Not finished: refine. Continue with --resume." in text
    assert "Judged by the seeds on the photos it learned from" in text


def test_run_that_has_only_begun_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", stages=("localize",))
    edit_json(run / "manifest.json", lambda m: m["stages"].update(localize={"done": False}))
    shutil.rmtree(run / "localize")
    write_json(run / "metrics.json", [])
    assert "has not finished any stage yet" in text_of(write_report(run).read_text("utf-8"))


def test_fully_supervised_run_is_not_said_to_learn_from_tags(tmp_path: Path) -> None:
    run = make_run(tmp_path, stages=("segment",))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": {"learn_masks": "all"}}))
    text = text_of(write_report(run).read_text("utf-8"))
    assert "From the true masks of 20 training photos" in text
    assert "used for evaluation only" not in text


def test_lost_photos_and_odd_logs_do_not_stop_the_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, classes=["cow"])
    shutil.rmtree(run / "photos")
    (run / "refine" / "log.csv").write_text("step,loss\n0,nan\n1,\n2,0.5\n")
    (run / "segment" / "log.csv").write_text("step,loss\n")
    page = write_report(run).read_text("utf-8")
    assert "<figcaption>photo and hints</figcaption>" not in page
    assert "<figcaption>pseudo mask</figcaption>" in page


def test_folder_that_is_no_run_and_damaged_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        write_report(tmp_path)
    run = make_run(tmp_path)
    (run / "metrics.json").write_text("[{")
    with pytest.raises(RunError, match=r"metrics\.json is no valid JSON"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("manifest.json", "[]", "the whole"),
        ("manifest.json", '{"hintseg": 1}', "hintseg: Input should be a valid string"),
        ("photos.json", '[{"id": "a", "path": "a.jpg", "split": "test"}]', r"0\.split"),
        ("metrics.json", '[{"stage": "localize", "miou": "much"}]', r"0\."),
        ("localize/sweep.json", '{"chosen": "0.3"', "is no valid JSON"),
        ("segment/masks/manifest.json", '{"masks": {"a": {"quality": 7}}}', "not the manifest"),
        ("config.yaml", "recipe: vwe", "seed: Field required"),
        ("config.yaml", "a: [", "is no valid YAML"),
        ("history.csv", "when,what\na,b\n", "the run does not need it"),
    ],
)
def test_an_edited_file_of_a_run_is_named_in_one_sentence(tmp_path: Path, file: str, text: str, named: str) -> None:
    run = make_run(tmp_path, truth=False)
    (run / file).write_text(text)
    with pytest.raises(RunError, match=named) as caught:
        write_report(run)
    assert str(run / file) in str(caught.value)


def test_stage_pictures_hold_a_row_per_photo(full: tuple[Path, str]) -> None:
    run, _ = full
    ids = ["herd/00 & <b>", "01", "unknown"]
    sheet = Image.open(write_pictures(run, "refine", ids))
    assert sheet.size[0] == 5 * (256 + 6) - 6  # photo, class map, seed, pseudo mask, truth
    one = Image.open(write_pictures(run, "refine", ids[:1]))
    assert sheet.size[1] > one.size[1] > 192
    truth = np.asarray(Image.open(run / "truth" / "01.png").convert("RGB"))
    right = np.asarray(sheet)[:, 4 * 262 :]
    rows = [r for r in range(len(right) - 90) if (right[r : r + 90, :120] == truth).all()]
    assert len(rows) == 1


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("variant", ["full", "no truth"])
def test_report_opens_in_a_browser_without_a_console_error(tmp_path: Path, variant: str) -> None:
    report = write_report(make_run(tmp_path / "run", truth=variant == "full"))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --disable-dev-shm-usage --enable-logging=stderr --v=0"
    command = [given(BROWSER), *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    assert "From the tags of 20 training photos of farm, this run made" in done.stdout
    assert "pseudo mask" in done.stdout
