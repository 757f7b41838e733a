"""What each part of a run depends on, so that a changed setting makes again what it touches and nothing else.

A stage has up to three parts: what it learned (`learn`), the maps read out of that (`maps`), and the masks cut out of
those (`masks`). A part depends on settings and on parts before it. A read-out setting, such as `maps.area`,
`refine.beta` or `test.scales`, belongs to a part behind `learn`: changing it never trains its network again. What
learns from masks that change is trained again, as its labels are others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from hintseg.config.run import STAGES, AttentionRefine, RunConfig
from hintseg.config.settings import MethodConfig
from hintseg.run.schema import Stage

Name = Literal["learn", "maps", "masks"]
Key = tuple[Stage, Name]


class Part(NamedTuple):
    """A part of a stage.

    Attributes:
        key: Stage and name.
        settings: All it depends on, by dotted key.
        reads: The parts it reads.
        files: What it wrote, below the run folder: files, and folders that end in `/`.
    """

    key: Key
    settings: dict[str, Any]
    reads: tuple[Key, ...]
    files: tuple[str, ...]


class Broken(NamedTuple):
    """Why a stage must be made again, from which part on.

    Attributes:
        key: The first part to be made again.
        why: What changed, in words.
        files: What is to be deleted, below the run folder.
        rate_only: Whether nothing changed but how the network is trained: a training under way goes on.
    """

    key: Key
    why: str
    files: tuple[str, ...]
    rate_only: bool


def parts(config: RunConfig) -> list[Part]:
    """Return the parts of a run in the order they are made."""
    raw = config.model_dump(mode="json")
    common = {"seed": raw["seed"], "data.longest": raw["data"]["longest"], "data.background": raw["data"]["background"]}
    common["start"] = raw["start"]
    made: list[Part] = []
    files: tuple[str, ...]
    read: tuple[Key, ...] = ()
    labels: list[Key] = []
    for stage in STAGES:
        settings = getattr(config, stage)
        if settings is None:
            continue
        own = {f"{stage}.{key}": value for key, value in _flat(raw[stage])}
        shown = {f"{stage}.{name}" for name in settings.read_out} if isinstance(settings, MethodConfig) else set()
        learned = common | {key: value for key, value in own.items() if key not in shown}
        late = {key: own[key] for key in shown}
        maps = {f"maps.{key}": raw["maps"][key] for key in ("scales", "flip")}
        cut = {f"maps.{key}": raw["maps"][key] for key in ("area", "threshold")}
        trust = {"segment.trust": bool((raw["segment"] or {}).get("trust", False))}  # whether it is kept beside masks
        test = {f"test.{key}": value for key, value in _flat(raw["test"])}
        learn: Key = (stage, "learn")
        if stage == "localize":
            read = ()  # it learns from tags, whatever became of the boxes
        elif stage == "segment":
            read = tuple(labels)
        if stage == "localize" and config.wrapper is not None:
            name, wrapper = config.wrapper
            learned |= {f"{name}.{key}": value for key, value in _flat(raw[name])}
            if wrapper.baseline_first:  # it goes all the way to its masks
                learned |= maps | cut | {f"refine.{key}": value for key, value in _flat(raw["refine"] or {})}
        if stage == "propose":
            if not isinstance(settings, MethodConfig):  # a network learns from boxes
                learned |= {"data.click_px": raw["data"]["click_px"]}
            before = f"propose/{settings.method}/"
            files = (before, *(f"propose/{part}" for part in ("instances/", *_MASKS)))
            kept = {"segment.trust": trust["segment.trust"] or raw["localize"] is not None}  # see `keeps_trust`
            made += [Part(learn, learned, read, ("propose/",)), Part((stage, "masks"), late | kept, (learn,), files)]
        elif stage == "segment":
            learned |= {f"data.{key}": raw["data"][key] for key in ("learn_masks", "click_px")}
            made.append(Part(learn, learned, read, ("segment/", "labels/", "trust/")))
            one_stage = isinstance(settings, MethodConfig) and settings.one_stage
            if one_stage:
                made.append(Part((stage, "maps"), maps | late, (learn,), ("segment/maps/", "segment/seeds/")))
            reads: tuple[Key, ...] = ((stage, "maps"),) if one_stage else (learn,)
            files = ("segment/masks/", "segment/seeds/", "segment/sweep.json", "segment/pictures.png")
            made.append(Part((stage, "masks"), (cut if one_stage else late) | test, reads, files))
        elif isinstance(settings, MethodConfig | AttentionRefine):
            files = tuple(f"{stage}/{part}" for part in (*_MASKS, "sweep.json"))
            scales = maps if stage == "localize" else {}
            cut = cut if stage == "localize" else {"maps.area": cut["maps.area"]}
            made.append(Part(learn, learned, read, (f"{stage}/",)))
            made.append(Part((stage, "maps"), scales | late, (learn,), (f"{stage}/maps/", *files)))
            teaches = stage == "refine" or raw["refine"] is None  # else its masks teach no segmenter
            made.append(Part((stage, "masks"), cut | (trust if teaches else {}), ((stage, "maps"),), files))
        else:  # a function refines the maps
            made.append(Part((stage, "masks"), learned | trust, read, (f"{stage}/",)))
        read = ((stage, "masks"),)
        labels = [key for key in labels if key[0] != "localize"] + [*read]  # refined masks stand in for seeds
    return made


_MASKS = ("masks/", "evidence/", "trust/", "pictures.png")
"""What a stage writes when it makes masks."""


def broken(before: RunConfig, now: RunConfig) -> list[Broken]:
    """Return, for each stage that new settings touch, its first part to be made again, and why.

    Example:
        >>> from hintseg.config.loader import load_config
        >>> data = {"path": "photos"}
        >>> before = load_config("vwe", data=data)
        >>> for part in broken(before, load_config("vwe", ["refine.beta=8", "test.flip=false"], data=data)):
        ...     print(*part.key, "-", part.why)
        refine maps - refine.beta was 10.0, is 8.0
        segment learn - it reads refine's masks
    """
    old = {part.key: part for part in parts(before)}
    again: dict[Key, str] = {}
    found: list[Broken] = []
    for part in parts(now):
        if part.key not in old:
            continue  # nothing of it is there yet
        earlier = old[part.key].settings
        changed = [key for key in {**earlier, **part.settings} if earlier.get(key) != part.settings.get(key)]
        touched = [key for key in part.reads if key in again]
        if old[part.key].reads != part.reads:
            again[part.key] = "it reads other masks"
        elif changed:
            again[part.key] = ", ".join(f"{key} was {earlier.get(key)}, is {part.settings.get(key)}" for key in changed)
        elif touched:
            stage, name = touched[0]
            again[part.key] = f"it reads {stage}'s {'maps' if name == 'maps' else 'masks'}"
        if part.key in again and all(entry.key[0] != part.key[0] for entry in found):
            rate_only = bool(changed) and all(key.startswith(f"{part.key[0]}.fit.") for key in changed) and not touched
            found.append(Broken(part.key, again[part.key], old[part.key].files, rate_only))
    return found


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
