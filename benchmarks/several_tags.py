"""How well seeds tell classes apart in photos of several tags, and what they could be worth if they did."""

from __future__ import annotations

import numpy as np

from hintseg.evaluation.confusion import Confusion
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.types import BACKGROUND, IGNORE


def several_tags(run: RunFolder) -> dict[str, float]:
    """Return the mIoU of a localizer's seeds on the training photos of two or more tags, and its ceiling.

    The ceiling is the mIoU of the same seeds with every pixel that they and the truth give to some object given to the
    right one: no method that tells classes apart better, and moves no border to the background, gets beyond it.

    Returns:
        ``several tags`` and ``several tags, ceiling``, each 0..1.
    """
    found, ceiling = (Confusion(len(run.classes), background=run.background) for _ in range(2))
    for photo in run.photos:
        truth_path, mask_path = run.truth_path(photo.id), run.stage("localize") / "masks" / f"{photo.id}.png"
        if photo.split != "train" or len(photo.tags or ()) < 2 or not (truth_path.is_file() and mask_path.is_file()):
            continue
        truth, mask = read_label_png(truth_path), read_label_png(mask_path)
        both = (mask != BACKGROUND) & (truth != BACKGROUND) & (truth != IGNORE)
        found.add(truth, mask)
        ceiling.add(truth, np.where(both, truth, mask))
    return {"several tags": found.miou(), "several tags, ceiling": ceiling.miou()}
