"""VWE: a tag classifier that also learns to name local visual words, pooled by a hybrid pyramid.

Ru, Du and Wu, "Learning Visual Words for Weakly-Supervised Semantic Segmentation", IJCAI 2021. A classifier of tags
needs to see only the most striking part of an object. Here a codebook names every cell of the feature map, and the
network must also tell which words a photo holds (`loss_word`), so it cannot drop the rest of the object. A third
classifier tells tags from word frequencies (`loss_w2i`) and is what the codebook learns from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from hintseg.cam.maps import EPSILON
from hintseg.config.settings import Auto, Count, MethodConfig, Positive
from hintseg.losses.classification import multi_label_soft_margin, tag_loss
from hintseg.methods.method import Method
from hintseg.nn.class_token import uses_class_token
from hintseg.nn.encoders import build_encoder, encoder_groups
from hintseg.nn.plain_vit import PlainVit
from hintseg.nn.pooling import POOLED_NORM, gap, pool
from hintseg.nn.prior import ClassPrior
from hintseg.nn.scale import FeatureScale
from hintseg.nn.visual_words import VisualWords, WordCode
from hintseg.types import Batch, ParameterGroup, Progress, Supervision


class VweConfig(MethodConfig):
    """Settings of VWE; the defaults are the paper's but for the words, whose paper form is in `paper/vwe-voc12`.

    With the paper's words (learned, temperature 1) P stays uniform and `loss_w2i` at the class prior. On features of a
    frozen DeiT-Ti the seeds of msrc were 66.5 with GAP and 70.6 with GAP and the words below (mean of five seeds); with
    the paper's words and Eq. 12 they were 53.3 (one seed): `python -m benchmarks run words`.

    Attributes:
        pooling: `hspp` is the paper's full method, `gap` its row "VWE" without the hybrid pooling.
        gamma: Weight of the average within `hspp`.
        prior: Whether the scores of tags have a fixed offset for how often the class occurs (see `hintseg.nn.prior`);
            the paper has none.
        words: k, size of the codebook.
        codebook: `means`: k-means of centred features before the first step, then running means; `learned`: by the
            gradient of `loss_w2i`, of features as they are (the paper).
        temperature: Divides the cosines before the softmax over words; the paper's is 1. Against 0.05
            seeds with 0.2 were ahead by 1.8 ± 0.1 on msrc and level on voc12-animals (three seeds, frozen DeiT-Ti).
        frequency: Word frequency as `mean` over cells (Eq. 4), their `sum` (the authors' code), or the mean brought to
            a fixed norm (`norm`), that of the features which the tag classifier sees. The mean alone has a norm of
            about 0.06 with 256 words, so steps of gradient descent on the word-to-image classifier are tiny.
        word_scale: Whether averages of features have a scale of their own in `loss_word`. The paper has none; features
            scaled for `hspp` have a much smaller average, and the word classifier learns as much slower.
        word_branch: How the class maps join the image branch and the word branch: their `sum`, since cells of both are
            shares of the log-odds of a tag; the larger (`max`, Eq. 12, each word map stretched to its image map); or
            `none`: the image branch alone (the released code).
        attention: Whether class maps are multiplied by how much the class token looks at each cell (see
            `hintseg.nn.class_token`).
    """

    task: ClassVar[Literal["localize", "refine", "segment", "propose"]] = "localize"
    read_out: ClassVar[frozenset[str]] = frozenset({"word_branch", "attention"})
    method: Literal["vwe"] = "vwe"
    pooling: Literal["gap", "hspp"] = "hspp"
    gamma: Annotated[float, Field(ge=0)] = 2.0
    prior: bool = True
    words: Count = 256
    codebook: Literal["means", "learned"] = "means"
    temperature: Positive = 0.05
    frequency: Literal["norm", "mean", "sum"] = "norm"
    word_scale: bool = True
    word_branch: Literal["none", "sum", "max"] = "sum"
    attention: bool | Auto = "auto"


class Vwe(Method):
    """Backbone, HSPP and a tag classifier; a word encoder with a classifier of words and one from words to tags."""

    Config = VweConfig
    supervision = frozenset({Supervision.TAGS})
    config: VweConfig

    def __init__(self, config: VweConfig, classes: int, background: bool) -> None:
        """Build the network.

        Args:
            config: The settings.
            classes: K.
            background: Whether pixels may belong to no class; a classifier has no such class itself.

        Raises:
            ConfigError: Attention is asked for, and the network has no class token.
        """
        super().__init__()
        self.config = config
        self.backbone = build_encoder(config.backbone)
        self.attends = uses_class_token(config.attention, self.backbone, background=background)
        channels = self.backbone.channels[-1]
        self.feature_scale = FeatureScale(rms=POOLED_NORM / channels**0.5)
        self.prior = ClassPrior(classes)
        self.encoder = VisualWords(
            config.words, channels, temperature=config.temperature, learned=config.codebook == "learned"
        )
        self.word_scale = FeatureScale(rms=POOLED_NORM / channels**0.5)
        self.frequency_scale = FeatureScale(rms=POOLED_NORM / config.words**0.5)
        self.image_classifier = nn.Conv2d(channels, classes, kernel_size=1, bias=False)  # W_img
        self.word_classifier = nn.Conv2d(channels, config.words, kernel_size=1, bias=False)  # W_word
        self.word_to_image = nn.Conv2d(config.words, classes, kernel_size=1, bias=False)  # W_w2i

    @property
    def reads_features(self) -> bool:
        """Yes."""
        return True

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scales on some batches, in training mode (that is what the classifiers will see); find words."""
        mode, device, seen = self.training, self.image_classifier.weight.device, list(batches)
        self.train()
        with torch.no_grad():
            levels = [self.backbone(b.images.to(device))[-1] for b in seen]
            self.feature_scale.measure(self._pool(level) for level in levels)
            levels = [self.feature_scale(level) for level in levels]
            if self.config.word_scale:
                self.word_scale.measure(gap(level) for level in levels)
            if self.config.codebook == "means":
                self.encoder.start(levels)
            if self.config.frequency == "norm":
                self.frequency_scale.measure(self._frequency(self.encoder(level)) for level in levels)
        self.train(mode)
        if self.config.prior:
            self.prior.measure((b.targets.tags, b.targets.tags_known) for b in seen)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_img``, ``loss_word`` and ``loss_w2i``, the three terms of Eq. 9."""
        features = self._features(batch.images)
        # The words follow the features and never pull them along: only the codebook and W_w2i learn from loss_w2i.
        code = self.encoder(features.detach())
        p_img = self.prior(_classify(self.image_classifier, self._pool(features)))
        # Words come from all cells, hence the average.
        p_word = _classify(self.word_classifier, self.word_scale(gap(features)))
        with torch.autocast(batch.images.device.type, enabled=False):  # words differ in the third digit
            p_w2i = self.prior(_classify(self.word_to_image, self.frequency_scale(self._frequency(code))))
        if self.training and self.config.codebook == "means":
            self.encoder.follow(features.detach(), code)
        return {
            "loss_img": tag_loss(p_img, batch.targets),
            "loss_word": multi_label_soft_margin(p_word, code.present),
            "loss_w2i": tag_loss(p_w2i, batch.targets),
        }

    def class_maps(self, images: Tensor) -> Tensor:
        """Return class maps (B, K, h, w), >= 0, not normalised."""
        if not self.attends:
            return self._maps(self._features(images))
        levels, attention = cast(PlainVit, self.backbone).attended(images)
        return self._maps(self.feature_scale(levels[-1])) * attention

    def raw_maps(self, images: Tensor) -> Tensor:
        """Return the image branch's scores of every cell (Eq. 10), (B, K, h, w), with a gradient."""
        scores: Tensor = self.image_classifier(self._features(images))
        return scores

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the backbone at the configured learning rate and all else at ``fit.head_lr`` times it."""
        heads = (self.encoder, self.image_classifier, self.word_classifier, self.word_to_image)
        return [
            *encoder_groups(self.backbone),
            ParameterGroup([p for head in heads for p in head.parameters()], head=True),
        ]

    def _features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, d, h, w)."""
        scaled: Tensor = self.feature_scale(self.backbone(images)[-1])
        return scaled

    def _maps(self, features: Tensor) -> Tensor:
        """(B, d, h, w) -> (B, K, h, w), >= 0."""
        image_maps: Tensor = self.image_classifier(features)  # Eq. 10
        if self.config.word_branch == "none":
            return torch.relu(image_maps)
        with torch.autocast(features.device.type, enabled=False):  # P may be flat: its pattern needs all digits
            shares = self.encoder(features).probabilities - self.encoder.usual[:, None, None]
            word_maps: Tensor = self.word_to_image(self.frequency_scale(shares))  # Eq. 11
        if self.config.word_branch == "sum":
            return torch.relu(image_maps + word_maps)
        return combine_branches(torch.relu(image_maps), torch.relu(word_maps))

    def _frequency(self, code: WordCode) -> Tensor:
        """Return word frequencies (B, k) as the classifier of tags sees them, before their scale."""
        return code.frequency("sum" if self.config.frequency == "sum" else "mean") - self.encoder.usual

    def _pool(self, features: Tensor) -> Tensor:
        """(B, d, h, w) -> (B, d)."""
        return pool(features, self.config.pooling, gamma=self.config.gamma)


def combine_branches(image_maps: Tensor, word_maps: Tensor) -> Tensor:
    """Take the larger of the image branch and the word branch, cell by cell.

    Each word map is stretched to lie between 0 and the maximum of its image map. So an image map keeps its strength, by
    which scales and flips are weighed, and a class the image branch does not see stays empty.

    Args:
        image_maps: ReLU of Eq. 10, (B, K, h, w).
        word_maps: ReLU of Eq. 11, (B, K, h, w).

    Returns:
        (B, K, h, w), >= 0, not normalised.

    Source:
        Eq. 12 of Ru, Du and Wu, IJCAI 2021; the stretching is ours.
    """
    low, high = word_maps.amin(dim=(2, 3), keepdim=True), word_maps.amax(dim=(2, 3), keepdim=True)
    pattern = (word_maps - low) / (high - low).clamp_min(EPSILON)
    return torch.maximum(image_maps, pattern * image_maps.amax(dim=(2, 3), keepdim=True))


def _classify(layer: nn.Module, vectors: Tensor) -> Tensor:
    """Apply a 1x1 convolution to pooled vectors, (B, d) -> (B, L)."""
    scores: Tensor = layer(vectors[:, :, None, None])
    return scores.flatten(1)
