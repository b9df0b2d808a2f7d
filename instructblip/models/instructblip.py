"""InstructBLIP (paper, Figure 3): picture -> vision encoder -> Q-Former -> projection -> language model.

The vision encoder and the language model are frozen; what lies between them learns. BLIP-2 is the same class
with `qformer.instruction_aware=False`.

Shapes: B rows, I images, F frames (1 for a picture), S image size, Q queries, P image tokens, V vision width,
L prompt tokens, T text tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructblip.config import ModelConfig
from instructblip.models.llm import LLM, language_model
from instructblip.models.paths import BACKBONES, absent_paths
from instructblip.models.qformer import QFormer
from instructblip.models.vision import VisionEncoder
from instructblip.models.weights import Weights, read_init, take_between
from instructblip.names import require


class InstructBlip(nn.Module):
    """The whole model. Tensors are named as in `transformers`, without placeholder ids for the queries.

    The first arguments are the same everywhere:
        pixel_values: uint8 (I, 3, S, S), or (I, F, 3, S, S) for video; floats are taken as normalised.
        qformer_input_ids, qformer_attention_mask: the instruction for the Q-Former, (B, T), right-padded.
        input_ids, attention_mask: the text for the language model, (B, L).
        image_index: (B,), the image each row looks at; None when row i looks at image i.
    Pictures of another size or dtype, and rows that do not match, raise ValueError.
    """

    def __init__(self, config: ModelConfig, vision: VisionEncoder, qformer: QFormer, llm: LLM) -> None:
        """Freezes the backbones that `config.unfreeze` does not name; ValueError if it names others."""
        super().__init__()
        for part in config.unfreeze:
            require(part, BACKBONES, "part to unfreeze")
        self.frozen = tuple(part for part in BACKBONES if part not in config.unfreeze)
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
        """Frozen backbones stay in eval mode: no dropout in what does not learn."""
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).eval()
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
    ) -> Tensor:
        """Negative log-likelihood (B, T) of each target token, 0 where `labels` (B, T) are -100.

        Causal: `input_ids` are prompt and response, right-padded, and `labels` stand at their tokens (T = L).
        Encoder-decoder: `input_ids` are the prompt and `labels` the response. The caller weighs and sums.
        """
        queries = self.query_embeds(pixel_values, qformer_input_ids, qformer_attention_mask, image_index)
        return self.llm.token_nll(*self._prepend(queries, input_ids, attention_mask), labels)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: Tensor,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        image_index: Tensor | None = None,
        *,
        num_beams: int,
        max_new_tokens: int,
        min_new_tokens: int,
        repetition_penalty: float,
        length_penalty: float,
    ) -> Tensor:
        """Response ids (B, <= max_new_tokens), right-padded with the pad id.

        Beam search without sampling. `repetition_penalty` looks at the response only; beams are compared by
        their summed log-likelihood / length ** `length_penalty` (PAPER B.3).
        """
        queries = self.query_embeds(pixel_values, qformer_input_ids, qformer_attention_mask, image_index)
        return self.llm.generate(
            *self._prepend(queries, input_ids, attention_mask),
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            repetition_penalty=repetition_penalty,
            length_penalty=length_penalty,
        )

    @torch.no_grad()
    def rank(
        self,
        pixel_values: Tensor,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        candidates: list[list[list[int]]],
        image_index: Tensor | None = None,
    ) -> list[Tensor]:
        """Per row the total log-likelihood of each of its candidates (token ids), in their order (PAPER B.6).

        Nothing is divided by length. An encoder-decoder's candidates end with EOS, a causal model's do not.

        Raises:
            ValueError: a row without candidates, or a candidate without tokens.
        """
        _check_candidates(candidates, rows=len(input_ids))
        queries = self.query_embeds(pixel_values, qformer_input_ids, qformer_attention_mask, image_index)
        return self.llm.rank(*self._prepend(queries, input_ids, attention_mask), candidates)

    def query_embeds(
        self,
        pixel_values: Tensor,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor,
        image_index: Tensor | None = None,
    ) -> Tensor:
        """What the language model sees of each row's picture, (B, F*Q, D), frame after frame (PAPER B.4)."""
        if pixel_values.dim() == 4:
            pixel_values = pixel_values[:, None]  # (I, 1, 3, S, S)
        frames = pixel_values.size(1)
        # Each image once, however many look at it; a frozen encoder keeps no graph, nothing before it learns.
        image_embeds = self.ln_vision(self.vision(pixel_values.flatten(0, 1)))  # (I*F, P, V)
        image_embeds = image_embeds.unflatten(0, (-1, frames))  # (I, F, P, V)
        if image_index is not None:
            image_embeds = image_embeds[image_index]  # (B, F, P, V)
        _check_rows(len(image_embeds), len(qformer_input_ids))
        queries = self.qformer(
            self.query_tokens,
            image_embeds.flatten(0, 1),
            qformer_input_ids.repeat_interleave(frames, dim=0),
            qformer_attention_mask.repeat_interleave(frames, dim=0),
        )  # (B*F, Q, D of the Q-Former)
        return self.language_projection(queries).unflatten(0, (-1, frames)).flatten(1, 2)  # (B, F*Q, D)

    def _prepend(self, queries: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The queries and then the text, as embeddings (B, F*Q + L, D), with their mask (B, F*Q + L)."""
        _check_rows(len(queries), len(input_ids))
        text = self.llm.model.get_input_embeddings()(input_ids)  # (B, L, D)
        visible = attention_mask.new_ones(queries.shape[:2])  # (B, F*Q)
        return torch.cat((queries.to(text.dtype), text), dim=1), torch.cat((visible, attention_mask), dim=1)


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
        take_between(model, init, str(config.init))
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
