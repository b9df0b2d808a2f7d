"""InstructBLIP (paper, Figure 3): picture -> vision encoder -> Q-Former -> projection -> language model.

The vision encoder and the language model are frozen; what lies between them learns. BLIP-2 is the same class
with `qformer.instruction_aware=False`.

Shapes: B rows, I images, F frames (1 for a picture, 0 for none), S image size, Q queries, P image tokens,
V vision width, L prompt tokens, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from instructblip.config.model import ModelConfig
from instructblip.models.generation import Search, Streamer
from instructblip.models.llm import IGNORE, LLM, language_model
from instructblip.models.lora import add_adapters, train_adapters
from instructblip.models.paths import BACKBONES, absent_paths
from instructblip.models.qformer import QFormer
from instructblip.models.vision import VisionEncoder
from instructblip.models.weights import Weights, read_init, take_between, with_queries
from instructblip.names import require
from instructblip.protocols import BeamLength, RepetitionScope


class InstructBlip(nn.Module):
    """The whole model. Tensors are named as in `transformers`, without placeholder ids for the queries.

    The first arguments are the same everywhere:
        pixel_values: uint8 (I, 3, S, S), or (I, F, 3, S, S) for video; floats are taken as normalised.
        qformer_input_ids, qformer_attention_mask: the instruction for the Q-Former, (B, T), right-padded.
        input_ids, attention_mask: the text for the language model, (B, L).
        image_index: (B,), the image each row looks at; None when row i looks at image i.
        query_position: (B,), the column of `input_ids` that the queries stand before, within the user turn of a
            chat; None when they stand before the whole text.
    Pictures of another size or dtype, and rows that do not match, raise ValueError.
    """

    def __init__(self, config: ModelConfig, vision: VisionEncoder, qformer: QFormer, llm: LLM) -> None:
        """Freezes the backbones that `config.unfreeze` does not name; ValueError if it names others."""
        super().__init__()
        for part in config.unfreeze:
            require(part, BACKBONES, "part to unfreeze")
        self.frozen = tuple(part for part in BACKBONES if part not in config.unfreeze)
        self.llm_train_mode = config.llm_train_mode
        width = config.qformer.hidden_size
        self.vision = vision
        self.ln_vision = nn.LayerNorm(vision.width, eps=config.ln_vision_eps)
        self.query_tokens = nn.Parameter(torch.empty(1, config.qformer.num_query_tokens, width))
        self.qformer = qformer
        self.language_projection = nn.Linear(width, llm.model.get_input_embeddings().embedding_dim)
        self.llm = llm
        nn.init.normal_(self.query_tokens, std=config.qformer.initializer_range)
        for part in self.frozen:
            self.get_submodule(part).requires_grad_(False)
        self.ln_vision.requires_grad_(not config.freeze_ln_vision)
        self.train()

    def train(self, mode: bool = True) -> InstructBlip:
        """Frozen backbones stay in eval mode, without dropout; the language model not with `llm_train_mode`."""
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).train(mode and part == "llm" and self.llm_train_mode)
        train_adapters(self, mode)
        return self

    def forward(
        self,
        pixel_values: Tensor,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        image_index: Tensor | None = None,
        query_position: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
    ) -> Tensor:
        """Negative log-likelihood (B, T) of each target token, 0 where `labels` (B, T) are -100.

        Causal: `input_ids` are prompt and response, right-padded, and `labels` stand at their tokens (T = L).
        Encoder-decoder: `input_ids` are the prompt and `labels` the response. The caller weighs and sums.
        """
        image = (pixel_values, qformer_input_ids, qformer_attention_mask, image_index, interpolate_pos_encoding)
        queries = self.query_embeds(*image)
        return self.llm.token_nll(*self._insert(queries, input_ids, attention_mask, query_position), labels)

    def text_nll(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, turn: Tensor | None = None) -> Tensor:
        """The same of the language model alone, which reads the text and no queries; `turn` as `token_nll` takes it."""
        text = self.llm.model.get_input_embeddings()(input_ids)  # (B, L, D)
        return self.llm.token_nll(text, attention_mask, labels, turn)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: Tensor | None,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        image_index: Tensor | None = None,
        query_position: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        *,
        image_embeds: Tensor | None = None,
        num_beams: int,
        max_new_tokens: int,
        min_new_tokens: int,
        repetition_penalty: float,
        length_penalty: float,
        repetition_scope: str = RepetitionScope.generated,
        beam_length: str = BeamLength.with_start,
        top_p: float | None = None,
        seeds: Sequence[int] | None = None,
        streamer: Streamer | None = None,
    ) -> Tensor:
        """Response ids (B, <= max_new_tokens), EOS included, right-padded with the pad id (PAPER B.3).

        Greedy with one beam, else beam search: beams are compared by summed log-likelihood / length **
        `length_penalty`. With `top_p` one response is drawn, each row's from its own number in `seeds` (B).
        The settings are those of `recipes.Decoding`. A `streamer` sees each token as it is chosen.

        Raises:
            ValueError: a setting out of its range, `top_p` or a streamer with several beams, `top_p` without seeds.
        """
        search = Search(
            num_beams, max_new_tokens, min_new_tokens, repetition_penalty, length_penalty,
            repetition_scope, beam_length, top_p,
        )  # fmt: skip
        image = (pixel_values, qformer_input_ids, qformer_attention_mask, image_index, interpolate_pos_encoding)
        queries = self.query_embeds(*image, image_embeds)
        said = input_ids.masked_fill(attention_mask == 0, IGNORE)  # (B, L)
        inputs = self._insert(queries, input_ids, attention_mask, query_position)
        return self.llm.generate(*inputs, said, search, seeds, streamer)

    @torch.no_grad()
    def rank(
        self,
        pixel_values: Tensor | None,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        candidates: list[list[list[int]]],
        image_index: Tensor | None = None,
        query_position: Tensor | None = None,
        *,
        image_embeds: Tensor | None = None,
    ) -> list[Tensor]:
        """Per row the total log-likelihood of each of its candidates (token ids), in their order (PAPER B.6).

        Nothing is divided by length. An encoder-decoder's candidates end with EOS, a causal model's do not.
        Ties are left to whoever orders the scores (`metrics.multiple_choice`: the first wins); equal
        candidates of a row have equal numbers.

        Raises:
            ValueError: a row without candidates, a candidate without tokens, or a language model with layers
                on which candidates cannot be laid out as a tree.
        """
        _check_candidates(candidates, rows=len(input_ids))
        image = (pixel_values, qformer_input_ids, qformer_attention_mask, image_index)
        queries = self.query_embeds(*image, image_embeds=image_embeds)
        return self.llm.rank(*self._insert(queries, input_ids, attention_mask, query_position), candidates)

    def encode_images(self, pixel_values: Tensor, interpolate_pos_encoding: bool | None = None) -> Tensor:
        """Image tokens (N, P, V) of pictures (N, 3, S, S), what the Q-Former attends to."""
        return self.ln_vision(self.vision(pixel_values, interpolate_pos_encoding))

    def query_embeds(
        self,
        pixel_values: Tensor | None,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor,
        image_index: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        image_embeds: Tensor | None = None,
    ) -> Tensor:
        """What the language model sees of each row's picture, (B, F*Q, D), frame after frame (PAPER B.4).

        `image_embeds` (I, F, P, V) stand for pictures that `encode_images` has seen before; with none in them (F = 0)
        there are no queries, and the language model reads the text alone.
        """
        if image_embeds is None:
            if pixel_values is None:
                raise ValueError("there are neither pixel_values nor image_embeds; give one of them")
            if pixel_values.dim() == 4:
                pixel_values = pixel_values[:, None]  # (I, 1, 3, S, S)
            # Each image once, however many look at it; a frozen encoder keeps no graph, nothing before it learns.
            image_embeds = self.encode_images(pixel_values.flatten(0, 1), interpolate_pos_encoding)  # (I*F, P, V)
            image_embeds = image_embeds.unflatten(0, (-1, pixel_values.size(1)))  # (I, F, P, V)
        frames = image_embeds.size(1)
        if image_index is not None:
            image_embeds = image_embeds[image_index]  # (B, F, P, V)
        _check_rows(len(image_embeds), len(qformer_input_ids))
        if frames == 0:
            width = self.llm.model.get_input_embeddings().embedding_dim
            return image_embeds.new_empty(len(image_embeds), 0, width)  # (B, 0, D)
        queries = self.qformer(
            self.query_tokens,
            image_embeds.flatten(0, 1),
            qformer_input_ids.repeat_interleave(frames, dim=0),
            qformer_attention_mask.repeat_interleave(frames, dim=0),
        )  # (B*F, Q, D of the Q-Former)
        return self.language_projection(queries).unflatten(0, (-1, frames)).flatten(1, 2)  # (B, F*Q, D)

    def _insert(
        self, queries: Tensor, input_ids: Tensor, attention_mask: Tensor, query_position: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The text with the queries in it, as embeddings (B, F*Q + L, D), with their mask (B, F*Q + L)."""
        _check_rows(len(queries), len(input_ids))
        if not queries.size(1) and not attention_mask.any(dim=1).all():
            raise ValueError("a row has no picture and no text: the language model has nothing to read")
        text = self.llm.model.get_input_embeddings()(input_ids)  # (B, L, D)
        visible = attention_mask.new_ones(queries.shape[:2])  # (B, F*Q)
        embeds = torch.cat((queries.to(text.dtype), text), dim=1)  # (B, F*Q + L, D)
        mask = torch.cat((visible, attention_mask), dim=1)  # (B, F*Q + L)
        if query_position is None:
            return embeds, mask
        order = _text_order(queries.size(1), text.size(1), query_position)  # (B, F*Q + L)
        return embeds.take_along_dim(order[..., None], dim=1), mask.gather(1, order)


def build(config: ModelConfig, seed: int) -> InstructBlip:
    """The model with its weights: each backbone from `config.init` where that holds it, else from its own `weights`;
    what lies between from `config.init`. With `random_init`, what is not given is drawn from `seed`.

    The global random state is left as it was.

    Raises:
        ValueError: paths that are not given or not there (all in one message), a tensor that has no place or no
            source, a backbone with two sources, or weights that were trained on another frozen base.
    """
    if absent := absent_paths(config):
        raise ValueError(f"weights not found: {', '.join(absent)}; set the paths or model.random_init=true")
    init = read_init(config)
    given = {part: _only_source(config, init, part) for part in BACKBONES}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        vision = VisionEncoder(config.vision, given["vision"])
        llm = language_model(config.llm, given["llm"])
        model = InstructBlip(config, vision, QFormer(config.qformer, vision.width), llm)
    if config.init is not None:
        init = with_queries(init, model.query_tokens) if config.resize_queries else init
        take_between(model, init, str(config.init))
    if config.lora.targets:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            add_adapters(model, config.lora)
    return model


def trainable_names(model: InstructBlip) -> list[str]:
    """Names of the parameters that learn: ln_vision, queries, Q-Former, projection, and what was unfrozen."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _only_source(config: ModelConfig, init: Weights, part: str) -> dict[str, Tensor] | None:
    """The backbone's tensors in `init`; None when they are to be read from its own path or drawn."""
    path, held = getattr(config, part).weights, init.of(part)
    if path and held:
        raise ValueError(f"model.init={config.init} holds {part} as well as {path}: set model.{part}.weights=null")
    if not path and not held and not config.random_init:
        raise ValueError(f"model.init={config.init} does not hold {part}; set model.{part}.weights")
    return held or None


def _text_order(queries: int, length: int, query_position: Tensor) -> Tensor:
    """Columns (B, Q + L) of [queries, text], in the order that puts the queries before text column `query_position`."""
    text = torch.arange(length, device=query_position.device)  # (L,)
    before = text < query_position[:, None]  # (B, L)
    first = queries * ~before + text  # (B, L), where each column of the text goes
    query = query_position[:, None] + torch.arange(queries, device=query_position.device)  # (B, Q)
    return torch.cat((query, first), dim=1).argsort(dim=1)


def _check_rows(images: int, texts: int) -> None:
    if images != texts:
        raise ValueError(f"{images} rows of pictures for {texts} rows of text; image_index says who looks at what")


def _check_candidates(candidates: list[list[list[int]]], rows: int) -> None:
    if len(candidates) != rows:
        raise ValueError(f"{len(candidates)} lists of candidates for {rows} rows; each row needs its own")
    for row, texts in enumerate(candidates):
        if not texts:
            raise ValueError(f"row {row} has 0 candidates; rank needs at least 1")
        if empty := [i for i, ids in enumerate(texts) if not ids]:
            raise ValueError(f"row {row}: candidates {empty} of {len(texts)} have 0 tokens; give each a text")
