"""Bytes that hintseg keeps of each photo: `python -m benchmarks.sizes RUN`.

What stages made is measured in a finished run. Features that are kept of a frozen network are measured on photos of
drawn shapes of 320 x 320 pixels, with random weights: their size does not depend on what a photo shows.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.filesize import decimal

import hintseg
from benchmarks import results
from benchmarks.results import Result
from benchmarks.tables import NETWORKS
from hintseg.data.shapes import write_shapes
from hintseg.features.cache import FeatureCache
from hintseg.run.folder import RunFolder

NAME, COLUMN, FEATURES = "sizes", "bytes a photo", "features of "

STORED = {
    "class maps": "localize/maps",
    "seeds, palette PNG": "localize/masks",
    "masks, palette PNG": "refine/masks",
    "predictions, palette PNG": "segment/masks",
    "scores after the walk": "refine/maps",
    "true masks": "truth",
}
"""Folders of a run with a file for each photo."""

_SIDE, _PHOTOS = 320, 8


def of_run(run: RunFolder) -> dict[str, float]:
    """Return the bytes a photo of each artefact that a run has."""
    found = {"photo": statistics.mean(photo.path.stat().st_size for photo in run.photos)}
    for words, name in STORED.items():
        files = [file for file in (run.path / name).rglob("*") if file.is_file()]
        if files:
            found[words] = statistics.mean(file.stat().st_size for file in files)
    found["`photos.json`"] = (run.path / "photos.json").stat().st_size / len(run.photos)
    return found


def of_features(networks: Mapping[str, tuple[str, str]] = NETWORKS) -> dict[str, float]:
    """Return the bytes a photo of the features of each frozen network, by its title."""
    found = {}
    before = os.environ.get("HINTSEG_CACHE")
    try:
        for title, (name, _) in networks.items():
            with TemporaryDirectory() as folder:
                os.environ["HINTSEG_CACHE"] = f"{folder}/cache"
                write_shapes(Path(folder) / "data", train=_PHOTOS, val=1, size=_SIDE)
                levels = ("backbone.output_stride=16", "backbone.levels=4") if name == "resnetv2_50" else ()
                hintseg.train(
                    Path(folder) / "data",
                    Path(folder) / "run",
                    recipe="cam",
                    settings=[
                        *(f"backbone.name={name}", "backbone.weights=random", "backbone.freeze=all", *levels),
                        *("refine=null", "segment=null", "localize.fit.epochs=1", "trainer.pictures=0"),
                    ],
                )
                usage = FeatureCache().usage()
                found[FEATURES + title] = usage.bytes / usage.files
    finally:
        os.environ.pop("HINTSEG_CACHE", None)
        os.environ |= {} if before is None else {"HINTSEG_CACHE": before}
    return found


def run_sizes(run: Path, folder: Path = results.FOLDER) -> list[Result]:
    """Measure both and keep that in place of what there was."""
    opened = RunFolder.open(run)
    data, command = opened.config.data.path.name, "python -m benchmarks.sizes RUN"
    found = [
        results.measured(NAME, row, COLUMN, value, data=data, metric="bytes", command=command)
        for row, value in (of_run(opened) | of_features()).items()
    ]
    results.write(NAME, found, folder)
    return found


def markdown(found: Sequence[Result]) -> str:
    """Return the table of all sizes, what many photos take, and what it was measured with."""
    if not found:
        return "Not measured."
    rows = []
    for one in sorted(found, key=lambda one: (one.row.startswith(FEATURES), -one.value)):
        many = [decimal(round(count * one.value), precision=0) for count in (1e3, 1e6)]
        rows.append([one.row, f"{one.value:,.0f}", *many])
    table = results.grid(["kept", "bytes a photo", "10^3 photos", "10^6 photos"], rows)
    first = found[0]
    return f"{table}\n\nVersion {first.version}; {first.data}; {first.date}. Again: `{first.command}`."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description="Bytes that hintseg keeps of each photo.")
    parser.add_argument("run", type=Path, help="a finished run")
    print(markdown(run_sizes(parser.parse_args(arguments).run)))


if __name__ == "__main__":
    main()
