"""Dataclasses mirroring `conf/`, registered once as the schema Hydra composes into.

A number that stands here as a default is the paper's or LAVIS' (source beside it) unless it says `ours`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from instructblip.choices import (
    Draw,
    Images,
    Leakage,
    MediaMode,
    Precision,
    PromptFormat,
    Purpose,
    Reduction,
    Resume,
    Source,
    Weighting,
)
from instructblip.recipes import Sampling


@dataclass
class PathsConfig:
    raw: str = MISSING
    data: str = MISSING
    runs: str = MISSING
    weights: str = MISSING
    hub: str | None = None  # copies of Hugging Face datasets as <hub>/<owner>/<name>; null: the hub itself
    media: dict[str, str] = field(default_factory=dict)  # pool -> folder, where it is not paths.raw/<pool>


@dataclass
class PartitionConfig:
    """Which recipes a study trains on and which it never sees."""

    held_in: list[str] = MISSING
    held_out: list[str] = MISSING

    def groups(self) -> dict[str, list[str]]:
        """What `recipe=held_in` and `recipe=held_out` stand for."""
        return {"held_in": self.held_in, "held_out": self.held_out}


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
    max_length: int = 128  # LAVIS max_txt_len, [CLS] and [SEP] counted, cut from the left


@dataclass
class LLMConfig:
    """A frozen language model of transformers and its token policy."""

    type: str = MISSING  # transformers model type: llama, t5, ...
    weights: str | None = None
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
    init: Any = None  # weights to start from: a run's checkpoint, a folder, a .pth, or BLIP-2's [stage 1, stage 2]
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


@dataclass
class MixtureConfig:
    name: str = MISSING
    recipes: Any = MISSING
    weighting: Weighting = Weighting.sqrt
    temperature: float | None = None  # T of weighting=temperature, p_d ~ S_d^(1/T)
    splits: dict[str, str] = field(default_factory=dict)  # recipe -> another of its training splits than the first
    sizes: dict[str, Sampling] = field(default_factory=dict)  # recipe -> another S_d than its own, and what it counts
    factors: dict[str, float] = field(default_factory=dict)  # hand factors on p_d, before renormalising
    draw: Draw = Draw.random
    complete: dict[str, float] = field(default_factory=dict)  # recipe -> share of its S_d that must be prepared
    otherwise: dict[str, str] = field(default_factory=dict)  # mixtures to choose when it is not, and what they are


@dataclass
class TransformsConfig:
    """Training crops, flips and RandAugment (PAPER C.4); evaluation squashes to the image size.

    Crops and flips falsify what a question says of left and right, of counts and of printed words.
    """

    crop_scale: list[float] = field(default_factory=lambda: [0.5, 1.0])  # share of the area
    flip: float = 0.5
    rand_augment: int = 0  # operations a picture; LAVIS draws 2 for FlanT5, none for Vicuna
    rand_augment_level: int = 5  # of 10, LAVIS
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)  # recipe -> fields it has otherwise

    def of(self, recipe: str) -> TransformsConfig:
        """What holds for one recipe. Raises ValueError naming a field there is not."""
        own = self.recipes.get(recipe, {})
        known = [name for name in vars(self) if name != "recipes"]
        if unknown := sorted(set(own) - set(known)):
            raise ValueError(f"transforms.recipes.{recipe} sets {', '.join(unknown)}; it may set {', '.join(known)}")
        return replace(self, **own, recipes={})


@dataclass
class OptimConfig:
    """AdamW with a linear warm-up and a cosine to `min_lr` (PAPER C.1)."""

    lr: float = 1e-5
    warmup_lr: float = 1e-8
    min_lr: float = 0.0
    warmup_steps: int = 1000
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.05
    clip_norm: float | None = None


@dataclass
class LossConfig:
    reduction: Reduction = Reduction.group
    group_size: int | None = None  # null: the group size of the stream


@dataclass
class TrainerConfig:
    """Where and how a run is executed; nothing here may change what is learnt."""

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Precision = Precision.bf16
    micro_batch_size: int = 8
    num_workers: int = 2
    num_threads: int | None = None  # of the main process; null: torch's own choice
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    max_bad_media: int = 100  # ours: a run stops after so many unreadable pictures


@dataclass
class LoggerConfig:
    """The metrics file is always written; W&B only when asked for."""

    wandb: bool = False
    project: str = "instructblip"
    offline: bool = True


@dataclass
class TrainConfig:
    experiment: list[str] = field(default_factory=list)  # filled from the experiment= on the command line
    name: str = ""  # of the run directory; derived when empty
    seed: int = 42  # LAVIS
    purpose: Purpose = Purpose.instruction_tune
    allow_leak: bool = False
    leakage: Leakage = Leakage.paper
    steps: int = MISSING
    batch_size: int = MISSING  # global
    per_image: int = 1  # consecutive samples of one picture, which is encoded once (ours; the paper mixes all rows)
    group_size: int = MISSING  # consecutive samples of one dataset: the paper's per-GPU batch
    model: ModelConfig = field(default_factory=ModelConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    transforms: TransformsConfig = field(default_factory=TransformsConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    resume: Resume = Resume.never
    dry_run: bool = False


@dataclass
class PrepareConfig:
    recipe: Any = None
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    splits: list[str] | None = None  # null: the recipe's training and evaluation splits
    media: MediaMode = MediaMode.copy
    shard_size: int = 10_000  # pictures per tar (ours)
    max_bad_media: float = 0.0  # share of a recipe's pictures that may be missing or broken
    check_counts: bool = True  # refuse a split whose row count is not the official one
    workers: int | None = None  # processes that read pictures; null: one a core
    frames: int = 4  # of a clip, uniformly spaced (paper: 4, p. 6)
    part: int | None = None  # prepare this part of `parts` alone: one machine each
    parts: int = 64
    join: bool = False  # make one table of the parts, instead of preparing
    export: str | None = None  # folder for self-contained WebDataset shards of what was prepared
    rebuild: bool = False  # replace tables that another version of the recipe wrote
    source: Source = Source.raw
    check: bool = False  # only say what is there, what is missing and where it comes from
    check_json: str | None = None  # file for the same, for a program
    download_rate: float = 20.0  # megabytes a second that check=true reckons with (ours)
    explain: str | None = None  # a mixture: only show its sizes, probabilities and epochs
    steps: int = 60_000  # of the run that `explain` reckons with; these are vicuna7b's
    batch_size: int = 128
    preview: bool = False  # render some prepared rows as HTML, as the model of `model` reads them
    preview_rows: int = 8  # of each split
    preview_seed: int = 0  # of their choice
    model: ModelConfig = field(default_factory=ModelConfig)
    audit: bool = False  # compare what is prepared: which pictures and texts do training and evaluation share
    audit_distance: int = 6  # bits in which the perceptual hashes of one picture may differ (ours, on photographs)
    miniature: int | None = None  # seed: first render the embedded world into paths.raw


@dataclass
class EvaluateConfig:
    run: str = MISSING
    recipe: Any = MISSING
    prompts: str = "paper"
    predict: bool = True  # false: score the predictions that are there
    images: Images = Images.own
    limit: int | None = None
    eval_llm_limit: int | None = None  # tokens of a prompt the language model reads; null: all (LAVIS)
    batch_size: int = 16
    device: str = "auto"
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


@dataclass
class ReportConfig:
    runs: list[str] = field(default_factory=list)  # names; empty: every run under paths.runs
    paths: PathsConfig = field(default_factory=PathsConfig)


SCHEMAS = {"train": TrainConfig, "prepare": PrepareConfig, "evaluate": EvaluateConfig, "report": ReportConfig}
