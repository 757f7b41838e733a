"""What a run needs around CSD: checks of the data, the baseline's masks, the source photos, pictures of the pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hintseg.cam import choose_threshold, grow
from hintseg.config.run import RunConfig
from hintseg.data.dataset import PhotoDataset, collate
from hintseg.data.sources import Source, SourcePool, single_class_window
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import ConfigError, LabelError, RunError, join
from hintseg.hints.cooccurrence import cooccurrence_prior, single_tag_counts, tag_matrix
from hintseg.methods.method import Method
from hintseg.registry import methods, resolve
from hintseg.reporting.pictures import Panel, write_panels
from hintseg.run.folder import BASELINE, MadeMasks, RunFolder
from hintseg.run.schema import Shown
from hintseg.store.maps import read_maps
from hintseg.store.masks import read_label_png
from hintseg.training import machine
from hintseg.training.weights import load_weights
from hintseg.types import IGNORE, Hints, Photo, Tags
from hintseg.wrappers.csd import Csd, CsdConfig, check_wrappable, make_pastes
from hintseg.wrappers.wrapper import Wrapper

Bytes = npt.NDArray[np.uint8]

FEWEST_SOURCES = 10
"""Photos with a single tag below which CSD is refused: each would be pasted all the time."""


class Decoupling(Wrapper):
    """CSD around a localizer: its checks, its pairs of photos and its pictures."""

    Config = CsdConfig
    sources: SourcePool

    @classmethod
    def check(cls, config: RunConfig, photos: Sequence[Photo], classes: Sequence[str]) -> None:
        """Refuse what CSD cannot learn from: see `check_data`."""
        check_data(config, photos, classes)

    def __init__(self, run: RunFolder, config: RunConfig, photos: Sequence[Photo]) -> None:
        """Open the baseline, and pair the photos.

        Raises:
            RunError: The baseline has no masks, or is of other data.
            LabelError: It left the masks of all photos with a single tag empty.
        """
        self.run, self.config, self.photos, self.settings = run, config, photos, settings_of(config)
        baseline, made = open_baseline(self.settings.baseline or run.path / BASELINE, config, photos, run.classes)
        self.baseline = baseline
        self.read = _mask_reader(baseline, made, config, photos)
        alone = [photo for photo in photos if len(photo.hints.tags or ()) == 1]
        found = [Source(photo) for photo in alone if _shows_its_class(self.read(photo), photo)]
        if not found:
            raise LabelError(
                f"the masks in {made.folder} show the class of none of the {len(alone)} photos with a single tag: the "
                "baseline did not learn. See its report, or train without CSD: csd=null"
            )
        prior = cooccurrence_prior(tag_matrix(photos, len(run.classes)), diagonal=self.settings.diagonal)
        if self.settings.crops:
            found += single_class_crops(photos, self.read, _maps_folder(baseline, made), self.settings.crops)
        self.sources = SourcePool(found, prior if self.settings.resample else None)

    def masks(self, photo: Photo) -> Bytes | None:
        """Return the baseline's mask of a photo, (H, W) uint8, or None."""
        return self.read(photo)

    def wrap(self, method: Method) -> Method:
        """Return the localizer with CSD's losses beside its own."""
        if self.settings.teacher == "online":
            return Csd(method, self.settings)
        return Csd(method, self.settings, load_weights(self.baseline.stage("localize") / "model.safetensors")[0])

    def draw(self, method: Method) -> None:
        """Write a few pairs: see `draw_pairs`."""
        rows = draw_pairs(self, method)
        if not rows:
            return
        write_panels(self.run.wrapper_picture, rows)
        background = self.settings.background and self.run.background
        kinds = [kind for kind, used in (("objects", self.settings.foreground), ("background", background)) if used]
        text = (
            f"From photos with one tag (source) {join(kinds) or 'nothing'} were pasted into photos with several "
            "(target), and the maps of what was pasted were held to those in the source."
        )
        caption = "The maps of a row are of the source's class and share one scale."
        self.run.write_shown(Shown(name="CSD", title="Pastes of CSD", text=text, caption=caption))


def settings_of(config: RunConfig) -> CsdConfig:
    """Return CSD's settings.

    Raises:
        ConfigError: The run has none, or no localizer.
    """
    wrapper = config.wrapper
    if config.localize is None or wrapper is None or not isinstance(wrapper.settings, CsdConfig):
        raise ConfigError("'csd' wraps a localizer and there is none; leave it out with csd=null")
    return wrapper.settings


def check_data(config: RunConfig, photos: Sequence[Photo], classes: Sequence[str]) -> None:
    """Refuse what CSD cannot learn from, before anything is written or trained.

    Raises:
        LabelError: Too few photos with a single tag, or none with several.
        ConfigError: The localizer does not tell its raw class maps.
        RunError: The baseline that the settings name has no masks, or is of other data.
    """
    settings, name = settings_of(config), getattr(config.localize, "method", "")
    check_wrappable(resolve("method", name, methods()), name)
    tags = tag_matrix(photos, len(classes))
    alone = single_tag_counts(tags)
    if alone.sum() < FEWEST_SOURCES:
        each = ", ".join(f"{name} {count}" for name, count in zip(classes, alone, strict=True) if count) or "none"
        raise LabelError(
            f"{alone.sum()} of {len(photos)} training photos have a single tag ({each}); CSD learns from such photos "
            f"and needs at least {FEWEST_SOURCES}. Add photos that show one class only, or train without it: csd=null, "
            "or --recipe vwe"
        )
    if not (tags.sum(axis=1) > 1).any():
        raise LabelError(
            f"none of {len(photos)} training photos has two tags: CSD tells classes apart that appear together, and "
            "here none do. Train without it: csd=null, or --recipe vwe"
        )
    if settings.baseline is not None:
        open_baseline(settings.baseline, config, photos, classes)


def open_baseline(
    path: Path, config: RunConfig, photos: Sequence[Photo], classes: Sequence[str]
) -> tuple[RunFolder, MadeMasks]:
    """Open the run whose masks are pasted by.

    Returns:
        The run, and where its masks are.

    Raises:
        RunError: It is no run, has no masks, or is of other photos or classes.
    """
    baseline = RunFolder.open(path)
    made = baseline.masks_of_photos()
    if made is None:
        raise RunError(f"{baseline.path} has no finished masks, which CSD pastes by; finish that run first (--resume)")
    if baseline.classes != tuple(classes):
        raise RunError(
            f"csd.baseline={baseline.path} was trained on classes {', '.join(baseline.classes)}, this run has "
            f"{', '.join(classes)}; give a run on the same data, or leave csd.baseline out"
        )
    if baseline.background != (config.data.background == "present"):
        raise RunError(
            f"csd.baseline={baseline.path} was trained {'with' if baseline.background else 'without'} a background "
            "class, unlike this run; give a run with the same data.background, or leave csd.baseline out"
        )
    alone = [photo for photo in photos if len(photo.hints.tags or ()) == 1]
    if not any((made.folder / f"{photo.id}.png").is_file() for photo in alone):
        raise RunError(
            f"csd.baseline={baseline.path} has a mask of none of the {len(alone)} photos with a single tag; give a run "
            "on the same photos, or leave csd.baseline out"
        )
    return baseline, made


def _mask_reader(
    baseline: RunFolder, made: MadeMasks, config: RunConfig, photos: Sequence[Photo]
) -> Callable[[Photo], Bytes | None]:
    """Return a reader of stage one's masks.

    Without background the mask of a photo with a single tag is that class everywhere. Pasting it would leave nothing of
    the target, so it is cut to the cells where its map is strong (`maps.area` of all such photos' pixels).
    """
    maps = _maps_folder(baseline, made)
    threshold: float | None = None
    if not baseline.background:
        alone = [p for p in photos if len(p.hints.tags or ()) == 1 and (maps / f"{p.id}.npz").is_file()]
        scores = (torch.from_numpy(read_maps(maps / f"{p.id}.npz")[1]) for p in alone)
        threshold = choose_threshold(scores, area=config.maps.area) if alone else None

    def read(photo: Photo) -> Bytes | None:
        path = made.folder / f"{photo.id}.png"
        if not path.is_file():
            return None
        mask = read_label_png(path)
        if threshold is not None and len(photo.hints.tags or ()) == 1:
            class_ids, scores = read_maps(maps / f"{photo.id}.npz")
            own = scores[np.isin(class_ids, list(photo.hints.tags or ()))]
            grown = grow(torch.from_numpy(own)[None], mask.shape)[0, 0].numpy()
            mask = np.where(grown < threshold, np.uint8(IGNORE), mask)
        return mask

    return read


def _maps_folder(baseline: RunFolder, made: MadeMasks) -> Path:
    """Return where the class maps lie that the baseline's masks are of."""
    own = baseline.path / made.stage / "maps"
    return own if own.is_dir() else baseline.path / "localize" / "maps"


def _shows_its_class(mask: Bytes | None, photo: Photo) -> bool:
    """Return whether a mask has a pixel of the photo's classes."""
    return mask is not None and bool(np.isin(mask, list(photo.hints.tags or ())).any())


def single_class_crops(
    photos: Sequence[Photo], read: Callable[[Photo], Bytes | None], maps: Path, share: float
) -> list[Source]:
    """Return parts of photos with several tags that show one class alone, by the masks of the baseline.

    Args:
        photos: All photos.
        read: Returns the mask of a photo, as `Decoupling` reads it.
        maps: Folder of the class maps.
        share: Of the crops of each class that are kept, 0..1, rounded up: those in which the mean lead of its map over
            the highest of the photo's other tags is largest.

    Returns:
        The crops, each with the tag of its class.
    """
    led: dict[int, list[tuple[float, Source]]] = {}
    for photo in photos:
        tags = photo.hints.tags or Tags()
        mask = read(photo) if len(tags) > 1 and (maps / f"{photo.id}.npz").is_file() else None
        if mask is None:
            continue
        class_ids, scores = read_maps(maps / f"{photo.id}.npz")
        grown = grow(torch.from_numpy(scores)[None], mask.shape)[0].numpy()
        for label in sorted(tags.present & set(class_ids.tolist())):
            window = single_class_window(mask, label)
            alone = replace(photo, hints=Hints(Tags(frozenset({label}))))
            own = read(alone) if window else None
            if window is None or own is None:
                continue
            x0, y0, x1, y1 = window
            shown = own[y0:y1, x0:x1] == label
            if shown.any():
                part = grown[:, y0:y1, x0:x1][:, shown]
                lead = part[class_ids == label][0] - part[class_ids != label].max(axis=0, initial=0.0)
                led.setdefault(label, []).append((float(lead.mean()), Source(alone, window)))
    kept = []
    for crops in led.values():
        crops.sort(key=lambda crop: -crop[0])
        kept += [source for _, source in crops[: math.ceil(share * len(crops))]]
    return kept


@torch.no_grad()
def draw_pairs(found: Decoupling, method: Method) -> list[tuple[str, list[Panel]]]:
    """Return rows of a few sources, targets and pastes, and the maps of the source's class on each.

    Only what CSD learned from is drawn: no paste whose loss has no weight, and none of background where there is none.
    The maps of a row share one scale.
    """
    run, config, photos, settings = found.run, found.config, found.photos, found.settings
    learned = {
        "source": True,
        "target": True,
        "with object": settings.foreground > 0,
        "with background": settings.background > 0 and run.background,
    }
    several = [i for i, p in enumerate(photos) if len(p.hints.tags or ()) > 1 and found.masks(p) is not None]
    chosen = several[:: max(1, len(several) // max(1, config.trainer.pictures))][: config.trainer.pictures]
    if not chosen:
        return []
    fit = method.config.fit
    transform = TrainingTransform(int(fit.crop), (1.0, 1.0), longest=config.data.longest_side)
    dataset = PhotoDataset(photos, len(run.classes), transform, found.masks, sources=found.sources, seed=config.seed)
    batch = collate([dataset[i] for i in chosen])
    if batch.source is None:
        return []
    pastes = make_pastes(batch, torch.zeros(len(chosen), 2, dtype=torch.int64))
    made = (pastes.source, pastes.target, pastes.foreground, pastes.background)
    names = [name for name in learned if learned[name]]
    images = [image for name, image in zip(learned, made, strict=True) if learned[name]]
    with machine.at_work(method, config.trainer) as device, machine.autocast(config.trainer):
        maps = [method.class_maps(image.to(device)).float().cpu() for image in images]
    rows = []
    for i, (source, target) in enumerate(zip(batch.source.ids, batch.ids, strict=True)):
        label = int(batch.source.targets.tags[i].argmax())
        own = [one[i, label] for one in maps]  # (h, w) each
        most = max(float(one.max()) for one in own) or 1.0
        pictures = [(image[i].permute(1, 2, 0) * 255).round().byte().numpy() for image in images]
        panels = [Panel(name, picture, None) for name, picture in zip(names, pictures, strict=True)]
        panels += [
            Panel(f"map {name}" if name.startswith("with") else f"map of {name}", picture, (one / most).numpy())
            for name, picture, one in zip(names, pictures, own, strict=True)
        ]
        rows.append((f"{run.classes[label]} of {source} into {target}", panels))
    return rows
