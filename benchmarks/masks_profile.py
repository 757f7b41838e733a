"""Where the time goes when masks are made: network or refiner, waiting for photos, reading maps, waiting for writers.

python benchmarks/masks_profile.py [--photos 24] [--size 375] [--threads 1] [KEY=VALUE ...]

Trains a recipe for an epoch on `shapes`, throws the maps and masks away, makes them again and writes where the main
thread was. The default network is small and has random weights; try `backbone.name=resnet50`, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import hintseg
from hintseg import refine
from hintseg.config.run import DenseCrfRefine, ParRefine, RunConfig
from hintseg.data.shapes import write_shapes
from hintseg.hints import read_hints
from hintseg.methods.irn import Irn, IrnConfig
from hintseg.pipeline import each_photo, maps, stages
from hintseg.pipeline.begin import make_plan
from hintseg.run.folder import RunFolder
from hintseg.store import maps as map_store
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights
from hintseg.types import Photo

QUICK = [
    "backbone.name=resnet10t",
    "backbone.weights=random",
    *(f"{stage}.fit.epochs=1" for stage in ("localize", "refine", "segment")),
    *(f"{stage}.fit.crop=96" for stage in ("localize", "refine", "segment")),
    "trainer.workers=0",
    "trainer.pictures=0",
]
COMPUTING = ("multi_scale", "multi_scale_logits", "normalise", "dense_crf", "par", "seeds")


class Clock:
    """Seconds of the main thread by kind; what is called within a measured call counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inside = False

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        """Count the block as `kind`."""
        if self.inside:
            yield
            return
        self.inside, began = True, time.perf_counter()
        try:
            yield
        finally:
            self.inside = False
            self.seconds[kind] = self.seconds.get(kind, 0) + time.perf_counter() - began

    def wrap(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed."""

        def timed(*arguments: Any, **settings: Any) -> Any:
            with self(kind):
                return function(*arguments, **settings)

        return timed

    def iterate(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a generator function whose steps are timed."""

        def timed(*arguments: Any, **settings: Any) -> Iterator[Any]:
            items = iter(function(*arguments, **settings))
            while True:
                with self(kind):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return timed

    def pool(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a write pool whose waits are timed."""

        @contextmanager
        def timed(*arguments: Any) -> Iterator[Any]:
            manager = function(*arguments)
            write_behind = manager.__enter__()
            yield self.wrap("write", write_behind)
            with self("write"):
                manager.__exit__(None, None, None)

        return timed


def main() -> None:
    """Make masks and print the profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--size", type=int, default=375)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    with TemporaryDirectory() as folder:
        data = Path(folder, "photos")
        write_shapes(data, train=args.photos, val=args.photos, size=args.size)
        done = hintseg.train(data, Path(folder, "run"), settings=[*QUICK, *args.settings])
        run = RunFolder.open(done.path)
        config = run.config
        split = make_plan(read_hints(data), config)
        watch, clock = Watch(), Clock()
        localizer, refiner, segmenter = (
            load_weights(run.path / stage / "model.safetensors")[0] for stage in ("localize", "refine", "segment")
        )
        Irn.refine = clock.wrap("compute", Irn.refine)  # type: ignore[method-assign]
        IrnConfig.labels = clock.wrap("compute", IrnConfig.labels)  # type: ignore[method-assign]
        for module in (stages, maps, refine):
            for name in COMPUTING:
                if hasattr(module, name):
                    setattr(module, name, clock.wrap("compute", getattr(module, name)))
            if hasattr(module, "read_maps"):
                module.read_maps = clock.wrap("read maps", map_store.read_maps)
        each_photo.read_batches = clock.iterate("photos", each_photo.read_batches)
        each_photo.write_pool = clock.pool(each_photo.write_pool)
        with_crf = config.model_copy(update={"test": config.test.model_copy(update={"crf": DenseCrfRefine()})})

        def predict(settings: RunConfig) -> None:
            def write(photo: Photo, mask: npt.NDArray[np.uint8], quality: float) -> None:
                stages.write_mask(Path(folder, "out", f"{photo.id}.png"), mask)

            stages.predict_photos(segmenter, split.val, write, settings, watch)

        def by_function(settings: DenseCrfRefine | ParRefine) -> None:
            stages._refine_by_function(run, settings, config, split.train, 0.3, watch)

        train = (split.train, config, watch)
        tasks: dict[str, tuple[str | None, Callable[[], object]]] = {
            "class maps": ("localize/maps", lambda: maps.write_class_maps(run, "localize", localizer, *train)),
            "labels for IRN": ("refine/labels", lambda: stages._write_labels(run, config.refine, *train)),
            "random walk": ("refine/maps", lambda: stages._walk(run, refiner, *train)),
            "DenseCRF": (None, lambda: by_function(DenseCrfRefine())),
            "PAR": (None, lambda: by_function(ParRefine())),
            "predict": (None, lambda: predict(config)),
            "predict, DenseCRF": (None, lambda: predict(with_crf)),
        }
        heads = ("task", "ms per photo", "network or refiner", "photos awaited", "maps read", "writers awaited", "rest")
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        for task, (made, function) in tasks.items():
            for file in sorted((run.path / made).rglob("*.*")) if made else ():
                file.unlink()
            clock.seconds.clear()
            began = time.perf_counter()
            function()
            total = time.perf_counter() - began
            kinds = [clock.seconds.get(kind, 0.0) for kind in ("compute", "photos", "read maps", "write")]
            shares = " | ".join(f"{seconds / total:.1%}" for seconds in [*kinds, total - sum(kinds)])
            print(f"| {task} | {1000 * total / args.photos:.0f} | {shares} |")


if __name__ == "__main__":
    main()
