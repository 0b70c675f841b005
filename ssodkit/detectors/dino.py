"""DINO: a transformer whose queries find one object each, so that nothing is suppressed.

Source: Zhang et al., DINO: DETR with Improved DeNoising Anchor Boxes, ICLR 2023, arXiv:2203.03605; deformable
attention: Zhu et al., ICLR 2021, arXiv:2010.04159; boxes as queries: Liu et al., DAB-DETR, ICLR 2022, arXiv:2201.12329.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssodkit.detectors.backbones.base import Backbone, BackboneConfig
from ssodkit.detectors.base import Detector, DetectorConfig, build_matchers
from ssodkit.detectors.denoising import DenoisingConfig, Noise, make_noise
from ssodkit.detectors.detections import find_by_level
from ssodkit.detectors.images import make_pyramid
from ssodkit.detectors.rules import DenseDetectionRule, ProposalCount
from ssodkit.nn.projection import Projection, ProjectionConfig
from ssodkit.nn.query_decoder import QueryDecoder, QueryHead, Said, Trace
from ssodkit.nn.token_encoder import TokenEncoder, Tokens
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.coding import FrameCoder
from ssodkit.ops.denoising import blocked_between
from ssodkit.ops.query_groups import blocked_beside
from ssodkit.ops.rows import take_rows
from ssodkit.plugins import BuildContext, Config, Slot, register
from ssodkit.structures.predictions import Candidates, Detections, Features, Predictions, Queries, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import Record
from ssodkit.structures.teaching import Assignment, Supervision
from ssodkit.structures.views import View

FINEST_SIDE = 0.05
"""Of a proposal on the finest level, in image sides; twice as much on each further one."""
MARGIN = 0.01
"""Proposals lie, and have sides, so far from 0 and from 1."""


class TransformerConfig(Config):
    """Encoder and decoder; they are as wide as the projected maps."""

    heads: int = Field(8, ge=1, le=1024)
    points: int = Field(4, ge=1, le=1024)
    """Places of each level that a head reads for a query."""
    encoder_layers: int = Field(6, ge=1, le=100)
    decoder_layers: int = Field(6, ge=1, le=100)
    width: int = Field(2048, ge=1, le=65_536)
    """Of the layers that think over each token and query by itself."""


@dataclass(frozen=True)
class Memory(Record):
    """What a decoder's queries have read and become."""

    tokens: Tokens
    trace: Trace
    valid: Bool[Tensor, "batch queries"]


@register
class DinoConfig(DetectorConfig):
    """Three stages: `encoder` proposes places, `decoder` answers layer by layer about queries that begin there, and
    `denoising` likewise about queries made from targets."""

    type: Literal["dino"] = "dino"
    provides: ClassVar[frozenset[str]] = frozenset({"queries"})

    backbone: Slot[BackboneConfig]
    neck: ProjectionConfig = ProjectionConfig()
    transformer: TransformerConfig = TransformerConfig()
    queries: int = Field(900, ge=1, le=100_000)
    """Of an image; as many as there are cells, where these are fewer."""
    shared_heads: bool = True
    """Whether all layers of the decoder answer through one head (mmdetection: each has its own)."""
    prior: float = Field(0.01, gt=0.0, lt=1.0)
    """The probability of every class with which training begins."""
    clamp: float = Field(1e-3, gt=0.0, lt=0.5)
    """Sides and places are this far from 0 and from 1 before their logits are taken (Semi-DETR: 1e-5)."""
    denoising: DenoisingConfig | None = DenoisingConfig()
    """Null: none, and no such stage."""
    test: DenseDetectionRule = DenseDetectionRule(score=0.0, nms=None, at_most=300, per_level=300)

    @property
    def stage_answers(self) -> Mapping[str, frozenset[str]]:
        """All classify and move boxes."""
        names = ("encoder", "decoder") if self.denoising is None else ("encoder", "denoising", "decoder")
        return dict.fromkeys(names, frozenset({"class", "box"}))

    @property
    def stage_provides(self) -> Mapping[str, frozenset[str]]:
        """Queries lie nowhere until they answer; the encoder may leave classes to the decoder."""
        all_of = {
            "encoder": frozenset({"predictions", "sigmoid", "no_classes"}),
            "denoising": frozenset({"own_plan", "sigmoid"}),
            "decoder": frozenset({"predictions", "sigmoid"}),
        }
        return {name: all_of[name] for name in self.stage_answers}

    @property
    def query_channels(self) -> int:
        """As wide as the maps."""
        return self.neck.channels

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "DinoConfig":
        channels, heads = self.neck.channels, self.transformer.heads
        if channels % heads or channels % 4:
            raise ValueError(f"neck.channels is {channels}, which must be a multiple of 4 and of {heads} heads")
        return self

    def build(self, context: BuildContext) -> "Dino":
        return Dino(self, context)


class Dino(Detector):
    """Its queries are answers to one image each, and see each other: a region alone cannot be asked about."""

    backbone: Backbone
    neck: Projection

    def __init__(self, config: DinoConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.num_classes = context.num_classes
        self.stage_rules = config.stages
        self.backbone = config.backbone.build(context)
        self.neck = Projection(config.neck, self.backbone.channels, self.backbone.strides)
        channels, parts = config.neck.channels, config.transformer
        sizes = (channels, parts.heads, len(self.neck.strides), parts.points, parts.width)
        self.encoder = TokenEncoder(*sizes, parts.encoder_layers)
        self.propose = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))
        self.proposal_head = QueryHead(channels, self.num_classes, config.prior)
        self.content = nn.Embedding(config.queries, channels)
        self.decoder = QueryDecoder(
            *sizes, parts.decoder_layers, self.num_classes, config.shared_heads, config.prior, config.clamp
        )
        self.names = nn.Embedding(self.num_classes, channels) if config.denoising is not None else None
        self.matchers = build_matchers(config.stages, context)

    def extract(self, view: View) -> Features:
        """The projected maps of the normalized images; the padding is 0 after normalizing."""
        return make_pyramid(view, self.backbone, self.neck)

    def predict(
        self,
        features: Features,
        supervision: Supervision | None = None,
        proposals: ProposalCount = "test",
    ) -> Stages:
        """Queries at the best cells, of one number; with `supervision`, denoising ones as well."""
        frames = _frames(features.view)
        tokens = self.encoder(features.maps, features.strides, features.view.sizes)
        encoder, places = self._select(tokens, frames)
        valid, start = encoder.candidates.valid, places.detach()
        content = self.content.weight[: valid.shape[1]].expand(len(valid), -1, -1)
        if supervision is None or self.config.denoising is None or self.names is None:
            decoded = self.decoder(content, start, tokens, ~valid[:, None].expand(-1, valid.shape[1], -1))
            stages = self._stages(encoder, decoded.said, None, frames, features.view)
            return replace(stages, memory=Memory(tokens, decoded.trace, valid))
        rule = self.rule("denoising", supervision.progress)
        noise = make_noise(self.config.denoising, rule, supervision, frames, features.view.keys, self.num_classes)
        # An unused slot has the first class's name, so that every name has a gradient, if only of 0.
        content = torch.cat([self.names(noise.labels), content], dim=1)
        blocked = blocked_between(noise.slots, valid.shape[1])
        blocked |= ~torch.cat([noise.slots.used, valid], dim=1)[:, None]
        decoded = self.decoder(content, torch.cat([noise.boxes, start], dim=1), tokens, blocked)
        stages = self._stages(encoder, decoded.said, noise, frames, features.view)
        return replace(stages, memory=Memory(tokens, decoded.trace.since(noise.boxes.shape[1]), valid))

    def states_of(self, stages: Stages, queries: Queries) -> Sequence[Float[Tensor, "batch queries channels"]]:
        """Normalized states behind each layer of the decoder."""
        memory = stages.memory
        assert isinstance(memory, Memory)
        boxes = at_least_fp32(queries.boxes)
        codes = FrameCoder().encode(_frames(stages.view)[:, None].expand_as(boxes), boxes)
        blocked = blocked_beside(queries.group, queries.valid, memory.valid)
        return self.decoder(queries.content, codes, memory.tokens, blocked, memory.trace).states

    def detect(
        self,
        stages: Stages,
        score: float | None = None,
        rank: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        nms: float | None = None,
    ) -> Detections:
        """Final detections, of the last layer."""
        return find_by_level(stages.last, stages.view.sizes, self.config.test.at(progress, nms), score, rank)

    def _select(
        self, tokens: Tokens, frames: Float[Tensor, "batch 4"]
    ) -> tuple[Predictions, Float[Tensor, "batch queries 4"]]:
        """What the cells with the best class say, as predictions and as boxes in image sides.

        Cells at the border of an image, and those beyond it, propose nothing: they come last, and are not valid.
        """
        by_level = tokens.centers.split([height * width for height, width in tokens.shapes], dim=1)
        sides = [torch.full_like(centers, FINEST_SIDE * 2.0**level) for level, centers in enumerate(by_level)]
        boxes = torch.cat([tokens.centers, torch.cat(sides, dim=1)], dim=-1)
        usable = tokens.valid & ((boxes > MARGIN) & (boxes < 1.0 - MARGIN)).all(dim=-1)
        states = self.propose(tokens.memory.masked_fill(~usable[..., None], 0.0))
        logits = self.proposal_head.classify(states)
        with torch.no_grad():
            best = logits.amax(dim=-1).masked_fill(~usable, -torch.inf)
            rows = best.topk(min(self.config.queries, best.shape[1]), dim=1).indices
        places = self.proposal_head.moved(take_rows(boxes, rows), take_rows(states, rows), self.config.clamp)
        return _about(frames, take_rows(usable, rows), (take_rows(logits, rows), places)), places

    def _stages(
        self, encoder: Predictions, layers: list[Said], noise: Noise | None, frames: Tensor, view: View
    ) -> Stages:
        """`denoising.1`, ... before `decoder.1`, ..., whose last is the detector's answer."""
        count = noise.slots.used.shape[1] if noise is not None else 0
        by_name = {"encoder": encoder}
        for place, (logits, boxes) in enumerate(layers, start=1):
            if noise is not None:
                said = _about(frames, noise.slots.used, (logits[:, :count], boxes[:, :count]), noise.plan)
                by_name[f"denoising.{place}"] = said
        for place, (logits, boxes) in enumerate(layers, start=1):
            said = _about(frames, encoder.candidates.valid, (logits[:, count:], boxes[:, count:]))
            by_name[f"decoder.{place}"] = said
        return Stages(by_name, view)

    def class_layers(self, num_classes: int) -> Mapping[str, Tensor]:
        """What all heads call `classify`, and the names from which questions of denoising are made."""
        rows = torch.arange(num_classes)[:, None]
        return {name: rows for name, _ in self.named_modules() if name == "names" or name.endswith(".classify")}


def _frames(view: View) -> Float[Tensor, "batch 4"]:
    """Each whole image as a box, without padding, at least one pixel wide and high."""
    sides = view.sizes.flip(-1).clamp(min=1).to(torch.float32)
    return torch.cat([torch.zeros_like(sides), sides], dim=-1)


def _about(
    frames: Float[Tensor, "batch 4"],
    valid: Bool[Tensor, "batch queries"],
    said: Said,
    plan: Mapping[str, Assignment] | None = None,
) -> Predictions:
    logits, boxes = said
    queries = Candidates(frames[:, None].expand_as(boxes), valid, lengths=(boxes.shape[1],), lie=False)
    return Predictions(queries, logits, "sigmoid", boxes[:, :, None], FrameCoder(), plan=plan)
