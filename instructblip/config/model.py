"""The three parts of a model and what lies between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from instructblip.choices import PromptFormat, Stored


@dataclass
class VisionConfig:
    """A frozen vision encoder of transformers; `config` goes to its config class.

    `config.image_size` is the size its positions were learnt at, where that is not `image_size`.
    """

    type: str = MISSING  # transformers model type: instructblip_vision_model, clip_vision_model, ...
    weights: str | None = None  # file or folder; null with random_init
    image_size: int = 224
    mean: list[float] = field(default_factory=lambda: [0.48145466, 0.4578275, 0.40821073])  # PAPER C.4
    std: list[float] = field(default_factory=lambda: [0.26862954, 0.26130258, 0.27577711])
    config: dict[str, Any] = field(default_factory=dict)
    position_range: float | None = None  # what drawn positions deviate by, where not by config.initializer_range


@dataclass
class QFormerConfig:
    """BERT-base with 32 queries and cross-attention in every second layer (PAPER A.3)."""

    instruction_aware: bool = True
    num_query_tokens: int = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    cross_attention_frequency: int = 2
    vocab_size: int = 30523
    max_position_embeddings: int = 512
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    tokenizer: str = MISSING  # tokenizer.json or a folder
    weights: str | None = None  # BERT's folder, from which the first stage begins
    max_length: int = 128  # LAVIS max_txt_len, [CLS] and [SEP] counted, cut from the left


@dataclass
class LLMConfig:
    """A frozen language model of transformers and its token policy."""

    type: str = MISSING  # transformers model type: llama, t5, ...
    weights: str | None = None
    dtype: Stored = Stored.auto
    tokenizer: str = MISSING
    bos_token: str | None = None  # put before a prompt; Vicuna's is </s>, id 2 (PAPER A.5)
    eos_token: str = MISSING
    pad_token: str = MISSING
    unk_token: str | None = None
    max_prompt_length: int = 128  # LAVIS max_txt_len, cut from the left
    max_response_length: int = 256  # LAVIS max_output_txt_len, cut from the right
    prompt_format: PromptFormat = PromptFormat.raw
    chat_template: str | None = None  # of one user turn up to the response, with the slot {prompt}
    response_prefix: str = ""  # a blank for byte-level BPE, whose words begin with theirs
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stage1Config:
    """BLIP-2's first stage, numbers from LAVIS `blip2_qformer.py` and `Qformer.py`."""

    embed_dim: int = 256  # of the space in which pictures and texts are compared
    temperature: float = 0.07  # of the contrast, at the start: it is learned
    label_smoothing: float = 0.1  # of the contrast and of the generation
    max_length: int = 32  # of a caption, [CLS] and [SEP] counted, cut from the right
    masked_patches: float = 0.0  # share whose pixels an encoder that learns has to tell (ours); 0: no such loss


@dataclass
class LoraConfig:
    """Low-rank adapters; a part that has them learns through them alone. All numbers ours."""

    targets: list[str] = field(default_factory=list)  # part and linear map: llm.q_proj, qformer.query; empty: none
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05


@dataclass
class ModelConfig:
    name: str = MISSING
    vision: VisionConfig = field(default_factory=VisionConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)  # read by objective=stage1, which has no LLM
    init: Any = None  # to start from: a name in `starts`, a run's checkpoint, folder, .pth, or BLIP-2's [stage 1, 2]
    starts: dict[str, Any] = field(default_factory=dict)  # published weights of this model by name, for `init`
    seen: dict[str, list[str]] = field(default_factory=dict)  # recipes those starts were trained on
    resize_queries: bool = False  # other queries than init's: its first ones, and drawn ones where it has fewer (ours)
    random_init: bool = False  # tiny models: every weight drawn from `seed`, none loaded
    ln_vision_eps: float = 1e-5  # LAVIS; transformers has 1e-6 (PAPER A.2)
    freeze_ln_vision: bool = False
    llm_train_mode: bool = False  # dropout of the frozen LLM while training, which LAVIS leaves on in T5 (PAPER A.5)
    lora: LoraConfig = field(default_factory=LoraConfig)
    unfreeze: list[str] = field(default_factory=list)  # vision, llm: only where there is nothing pretrained to keep

    @classmethod
    def from_vision_qformer_text_configs(
        cls, vision_config: VisionConfig, qformer_config: QFormerConfig, text_config: LLMConfig, **fields: Any
    ) -> ModelConfig:
        """The whole from its three parts, by the names `transformers` gives them."""
        return cls(vision=vision_config, qformer=qformer_config, llm=text_config, **fields)
