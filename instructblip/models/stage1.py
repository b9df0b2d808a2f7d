"""BLIP-2's first stage (arXiv 2301.12597, section 3.2 and Figure 2): queries learn to read from pictures what captions
say, before there is a language model.

One Q-Former, three tasks, told apart by who may attend to whom: contrast, matching, and generation from the picture.
The numbers are those of LAVIS `blip2_models/blip2_qformer.py`.

Shapes: B rows of this rank, M rows of the whole step, Q queries, T caption tokens, S = Q + T, P image tokens, V vision
width, D width, E width of the contrast, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructblip.config.model import ModelConfig
from instructblip.models.bert import take_bert
from instructblip.models.masked import MaskedPatches
from instructblip.models.paths import BACKBONES, absent_stage1_paths
from instructblip.models.pretrained import check_fit
from instructblip.models.qformer import QFormer
from instructblip.models.vision import VisionEncoder
from instructblip.models.weights import read
from instructblip.names import require


@dataclass(frozen=True)
class Sight:
    """Queries see all queries, and a word those before it. Who sees what else?"""

    queries_see_text: bool
    text_sees_queries: bool
    text_sees_later_text: bool

    def mask(self, num_queries: int, attention_mask: Tensor) -> Tensor:
        """(B, 1, S, S), True where a row may read a column; padding, 0 in `attention_mask` (B, T), is never read."""
        length = attention_mask.size(1)
        seen = torch.ones(num_queries + length, num_queries + length, dtype=torch.bool, device=attention_mask.device)
        seen[:num_queries, num_queries:] = self.queries_see_text
        seen[num_queries:, :num_queries] = self.text_sees_queries
        if not self.text_sees_later_text:
            seen[num_queries:, num_queries:].tril_()
        real = F.pad(attention_mask.bool(), (num_queries, 0), value=True)  # (B, S)
        return (seen & real[:, None])[:, None]  # (B, 1, S, S)


#                  queries->text  text->queries  text->later text
CONTRAST = Sight(False, False, True)  # "uni-modal": two encoders in one
MATCHING = Sight(True, True, True)  # "bi-directional": one encoder of the pair
GENERATION = Sight(False, True, False)  # "multi-modal causal": the queries are all a word knows of the picture


@dataclass(frozen=True)
class Losses:
    """Of each row, not yet weighed, and whether the contrast named its own text and picture first."""

    contrast: Tensor  # (B,) mean of both directions
    matching: Tensor  # (B,) mean over the pair, the text with another picture, the picture with another text
    generation: Tensor  # (B, T - 1) of each token after the first, 0 at padding
    found: Tensor  # (B,) mean of both directions, 0 to 1
    masked: Tensor  # (B,) error of the patches that were hidden; 0 where none are


class Head(nn.Module):
    """BERT's language modelling head; its output matrix is the word embedding (tied, as in LAVIS)."""

    def __init__(self, width: int, vocab_size: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, text: Tensor, word_embeddings: Tensor) -> Tensor:
        """(B, T, D) and (W, D) -> logits (B, T, W)."""
        return F.linear(self.norm(F.gelu(self.dense(text))), word_embeddings, self.bias)


class Stage1(nn.Module):
    """Vision encoder, Q-Former with its text branch, and heads for the three tasks.

    Named as in `InstructBlip`, so that the second stage finds its parts here; heads as in `transformers`'
    `Blip2ForImageTextRetrieval`.
    """

    def __init__(self, config: ModelConfig, vision: VisionEncoder) -> None:
        """Raises ValueError for a Q-Former without a text branch, adapters, or an unknown part to unfreeze."""
        super().__init__()
        for part in config.unfreeze:
            require(part, BACKBONES, "part to unfreeze")
        if config.stage1.masked_patches and "vision" not in config.unfreeze:
            raise ValueError("model.stage1.masked_patches teaches the vision encoder: set model.unfreeze=[vision]")
        if not config.qformer.instruction_aware or config.lora.targets:
            raise ValueError(
                "the first stage trains the text branch, whole: set model.qformer.instruction_aware=true and no "
                "model.lora.targets"
            )
        qformer, stage1 = config.qformer, config.stage1
        self.config = stage1
        self.frozen = () if "vision" in config.unfreeze else ("vision",)
        self.vision = vision
        self.ln_vision = nn.LayerNorm(vision.width, eps=config.ln_vision_eps)
        self.query_tokens = nn.Parameter(torch.empty(1, qformer.num_query_tokens, qformer.hidden_size))
        self.qformer = QFormer(qformer, vision.width, text_is_read=True)
        self.vision_projection = nn.Linear(qformer.hidden_size, stage1.embed_dim)
        self.text_projection = nn.Linear(qformer.hidden_size, stage1.embed_dim)
        self.itm_head = nn.Linear(qformer.hidden_size, 2)
        self.lm_head = Head(qformer.hidden_size, qformer.vocab_size, qformer.layer_norm_eps)
        self.temperature = nn.Parameter(torch.tensor(stage1.temperature))
        self.masked_patches = MaskedPatches(vision) if stage1.masked_patches else None
        nn.init.normal_(self.query_tokens, std=qformer.initializer_range)
        self.vision.requires_grad_(not self.frozen)
        self.ln_vision.requires_grad_(not config.freeze_ln_vision)
        self.train()

    def train(self, mode: bool = True) -> Stage1:
        """A frozen vision encoder stays in eval mode."""
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).eval()
        return self

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        image_index: Tensor,
        own: Tensor,
        everyone: Callable[[Tensor], Tensor],
        draws: Tensor,
        hidden: Tensor | None = None,
    ) -> Losses:
        """The three losses of this rank's rows.

        Args:
            pixel_values: (I, 3, S, S), as `InstructBlip` takes them; image_index: (B,), the picture of each row.
            input_ids, attention_mask: (B, T), captions as [CLS] ... [SEP], right-padded, as wide on every rank.
            own: (B,), where the rows stand among the M of the step.
            everyone: (B, ...) of this rank -> (M, ...) of the step, with gradients to whoever computed a row.
            draws: (2, M) in [0, 1), which negative picture and which negative text each row gets.
            hidden: (B, patches), True where the row's picture is covered; only with `config.masked_patches`.
        """
        image_embeds = self.image_embeds(pixel_values)[image_index]  # (B, P, V)
        images, texts = self.features(image_embeds, input_ids, attention_mask)  # (B, Q, E), (B, E)
        to_texts, to_images = self.similarities(images, texts, everyone(images), everyone(texts))  # (B, M) each
        contrast = [
            F.cross_entropy(similarity, own, reduction="none", label_smoothing=self.config.label_smoothing)
            for similarity in (to_texts, to_images)
        ]
        found = [(similarity.argmax(1) == own).float() for similarity in (to_texts, to_images)]
        other_images = everyone(image_embeds)[hard_negatives(to_images, own, draws[0])]  # (B, P, V)
        others = hard_negatives(to_texts, own, draws[1])  # (B,)
        other_ids, other_mask = everyone(input_ids)[others], everyone(attention_mask)[others]  # (B, T)
        pairs = self.match(
            torch.cat((image_embeds, other_images, image_embeds)),
            torch.cat((input_ids, input_ids, other_ids)),
            torch.cat((attention_mask, attention_mask, other_mask)),
        )  # (3B, 2)
        fit = torch.arange(3, device=own.device).repeat_interleave(len(own)) == 0  # (3B,), the pair and the two others
        matching = F.cross_entropy(pairs.float(), fit.long(), reduction="none").view(3, -1).mean(0)  # (B,)
        return Losses(
            torch.stack(contrast).mean(0),
            matching,
            self.caption_nll(image_embeds, input_ids, attention_mask),
            torch.stack(found).mean(0),
            self._masked(pixel_values[image_index], hidden),
        )

    def _masked(self, pixel_values: Tensor, hidden: Tensor | None) -> Tensor:
        if self.masked_patches is None or hidden is None:
            return self.temperature.new_zeros(len(pixel_values))
        errors: Tensor = self.masked_patches(self.vision, self.vision.normalized(pixel_values), hidden)
        return errors

    def image_embeds(self, pixel_values: Tensor) -> Tensor:
        """Normalised image tokens (I, P, V). Raises ValueError for clips."""
        if pixel_values.dim() != 4:
            raise ValueError(f"pictures are {tuple(pixel_values.shape)}: the first stage reads pictures, not clips")
        normalised: Tensor = self.ln_vision(self.vision(pixel_values))
        return normalised

    def features(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of each query (B, Q, E) and of each text's [CLS] (B, E)."""
        queries, text = self._read(CONTRAST, image_embeds, input_ids, attention_mask)
        images = F.normalize(self.vision_projection(queries).float(), dim=-1)
        return images, F.normalize(self.text_projection(text[:, 0]).float(), dim=-1)

    def similarities(
        self, images: Tensor, texts: Tensor, all_images: Tensor, all_texts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, M) of own pictures to all texts, and of own texts to all pictures: the best of the queries, over the
        temperature. In float32, which a division by 0.07 needs."""
        with torch.autocast(images.device.type, enabled=False):
            to_texts = torch.einsum("bqe,me->bmq", images, all_texts).amax(-1)
            to_images = torch.einsum("be,mqe->bmq", texts, all_images).amax(-1)
            return to_texts / self.temperature, to_images / self.temperature

    def match(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, 2) logits of "do not belong together" and "do", the mean over the queries'."""
        queries, _ = self._read(MATCHING, image_embeds, input_ids, attention_mask)
        return self.itm_head(queries).mean(1)

    def caption_nll(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T - 1), smoothed, of each token after the first, 0 at padding. [DEC] stands in for [CLS]: the last row of
        the vocabulary, which the tokenizer does not have (LAVIS `init_tokenizer`)."""
        start = torch.full_like(input_ids[:, :1], self.qformer.config.vocab_size - 1)
        ids = torch.cat((start, input_ids[:, 1:]), dim=1)  # (B, T)
        _, text = self._read(GENERATION, image_embeds, ids, attention_mask)
        logits = self.lm_head(text[:, :-1], self.qformer.word_embeddings.weight)  # (B, T - 1, W)
        nll = F.cross_entropy(
            logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none",
            label_smoothing=self.config.label_smoothing,
        )  # fmt: skip
        return nll.view(ids[:, 1:].shape) * attention_mask[:, 1:]

    def _read(
        self, sight: Sight, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        mask = sight.mask(self.query_tokens.size(1), attention_mask)
        return self.qformer.both(self.query_tokens, image_embeds, input_ids, mask)


def build_stage1(config: ModelConfig, seed: int) -> Stage1:
    """The model with its weights, the language model of `config` left aside.

    The Q-Former begins from BERT (`qformer.weights`), or all of it from a first stage (`init`); the vision encoder from
    its own `weights` or that file. What is not given is drawn from `seed`, with `random_init` all of it.

    Raises:
        ValueError: paths that are not given or not there, tensors that have no place or no source.
    """
    if absent := absent_stage1_paths(config):
        raise ValueError(f"weights not found: {', '.join(absent)}; set the paths or model.random_init=true")
    begun = read(str(config.init)) if config.init is not None else None
    held = begun.of("vision") if begun else {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        vision = VisionEncoder(config.vision, None if config.vision.weights else held or None)
        model = Stage1(config, vision)
    if begun:
        tensors = begun.between()
        unused = tuple(name for name in model.state_dict() if name.startswith("vision."))
        check_fit(model, tensors, str(config.init), unused)
        model.load_state_dict(tensors, strict=False)
    elif config.qformer.weights:
        take_bert(model, config.qformer.weights)
    return model


@torch.no_grad()
def hard_negatives(similarity: Tensor, own: Tensor, draws: Tensor) -> Tensor:
    """(B,) places among the M columns, never a row's own, drawn by their softmax.

    `similarity` (B, M) of rows that stand at `own` (B,); `draws` (M,) in [0, 1), one for each row of the step, whoever
    computes it: the choice does not depend on how rows are dealt to ranks.
    """
    weights = similarity.double().scatter(1, own[:, None], -torch.inf).softmax(1)
    reached = weights.cumsum(1)  # (B, M)
    drawn = draws[own, None] * reached[:, -1:]
    return torch.searchsorted(reached, drawn, right=True)[:, 0].clamp(max=similarity.size(1) - 1)
