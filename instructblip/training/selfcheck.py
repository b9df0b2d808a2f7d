"""`selfcheck=true`: one process that accumulates all micro-batches against the processes at hand, on a tiny model.

Loss, gradient and weights after three updates must be the same, since the loss is defined over the global step. What
is compared runs through the same module, objective and strategy as a run. Dropout is off: its masks are drawn by rank.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.utils.data import DataLoader

from instructblip.choices import Precision, Reduction, Selfcheck, Strategy
from instructblip.config.model import LLMConfig, ModelConfig, QFormerConfig, VisionConfig
from instructblip.config.training import OptimConfig, TrainConfig, TrainerConfig
from instructblip.data.collate import Batch
from instructblip.data.steps import Step
from instructblip.models.instructblip import InstructBlip, build
from instructblip.models.sharding import whole
from instructblip.names import lookup
from instructblip.training.loss import Sum
from instructblip.training.module import TrainingModule
from instructblip.training.objectives import Instruct, token_nll
from instructblip.training.ranks import rank
from instructblip.training.signals import Signals
from instructblip.training.strategy import arguments, started
from instructblip.training.trainer import quiet

STEPS, ROWS, GROUP = 3, 2, 4  # updates; rows of a micro-batch, of a group of the loss
FEWEST = 8  # micro-batches of a step
ALONE = (2, 8)  # processes that one process starts to compare itself with
TEXT, WORDS, SIZE = 6, 64, 28  # tokens of a row, vocabulary, pixels
RATE = 1e-4
TOLERANCES = {  # largest absolute difference of any number: value, gradient, weight
    Precision.fp32: (1e-12, 1e-12, 1e-12),  # float64 here
    Precision.bf16: (1e-5, 1e-5, RATE),  # ours: sums in another order; AdamW may turn the sign of a tiny gradient
}
Outcome = dict[str, Tensor]  # `value`, `gradient.<name>`, `weight.<name>`


@dataclass(frozen=True)
class Case:
    reduction: Reduction
    precision: Precision


@dataclass(frozen=True)
class PerMicroBatch:
    """The planted fault: the mean of each micro-batch's own token mean, which is what summing `loss / n` gives."""

    right: Instruct
    count: int  # micro-batches of a step over all ranks

    @property
    def names(self) -> Sequence[str]:
        return self.right.names

    def prepare(self, batches: Sequence[Batch], all_reduce: Sum) -> list[Batch]:
        weighed = []
        for batch in batches:
            assert batch.loss_weight is not None
            weighed.append(replace(batch, loss_weight=batch.loss_weight / batch.loss_weight.sum() / self.count))
        return weighed

    def loss(self, batch: Batch, step: int, all_reduce: Sum) -> tuple[Tensor, Tensor]:
        return self.right.loss(batch, step, all_reduce)


class Recorder(Callback):
    """The loss of every step, the gradient of the first, the weights after the last; whole, also where sharded."""

    def __init__(self) -> None:
        self.outcome: Outcome = {}
        self.losses: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if not self.losses:
            grads = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
            self.outcome |= {f"gradient.{name}": whole(grad).clone() for name, grad in grads.items()}

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Outcome, batch: Step, batch_idx: int
    ) -> None:
        self.losses.append(outputs["loss"].cpu())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learnt = {n: p for n, p in pl_module.named_parameters() if p.requires_grad}
        self.outcome |= {f"weight.{name}": whole(weight).clone() for name, weight in learnt.items()}
        self.outcome["value"] = torch.stack(self.losses)


def selfcheck(config: TrainConfig) -> bool:
    """Prints the three differences for every case, and whether all are within tolerance. A planted fault never is."""
    chosen = lookup(config.selfcheck.lower(), {each.value: each for each in Selfcheck}, "selfcheck")
    planted = chosen is Selfcheck.planted
    quiet()
    cases = [*(Case(reduction, Precision.fp32) for reduction in Reduction), Case(config.loss.reduction, Precision.bf16)]
    found = started()
    world = found.per_node * found.nodes
    if world > 1:
        compared = {world: _together(config.trainer, cases, world, planted)}
    else:
        compared = {each: forked(config.trainer, cases, each, planted) for each in ALONE}
    if rank() != 0:
        return True  # the first process judges
    table = Table("loss over", "arithmetic", "processes", "value", "gradient", "update", "tolerance", "")
    passed = True
    for processes, pairs in compared.items():
        for case, (one, other) in zip(cases, pairs, strict=True):
            differences, tolerances = difference(one, other), TOLERANCES[case.precision]
            fits = all(d <= t for d, t in zip(differences, tolerances, strict=True))
            passed &= fits
            count = micro_batches(processes)
            table.add_row(
                case.reduction.value, "float64" if case.precision is Precision.fp32 else "bf16",
                f"1 x {count} and {processes} x {count // processes}", *(f"{d:.1e}" for d in differences),
                " ".join(f"{t:.0e}" for t in dict.fromkeys(tolerances)), "equal" if fits else "DIFFERENT",
            )  # fmt: skip
    console = Console(width=max(110, Console().width))
    console.print(table)
    console.print(_verdict(passed, planted), soft_wrap=True)
    return passed


def difference(one: Outcome, other: Outcome) -> tuple[float, float, float]:
    """Largest absolute difference of the losses, of the first gradient, and of the weights after the last update."""
    assert one.keys() == other.keys()
    apart = {name: (one[name].double() - other[name].double()).abs().max().item() for name in one}
    kinds = ("value", "gradient", "weight")
    value, gradient, weight = (max(apart[name] for name in apart if name.split(".")[0] == kind) for kind in kinds)
    return value, gradient, weight


def micro_batches(world: int) -> int:
    """Of a step, over all processes: the same number for each."""
    return world * -(-FEWEST // world)


def _verdict(passed: bool, planted: bool) -> str:
    if planted:
        return (
            "the planted fault (a mean of each micro-batch's mean) was NOT found: this check proves nothing"
            if passed
            else "the planted fault (a mean of each micro-batch's mean) was found, as it must be"
        )
    return "any split makes the same update" if passed else "the split changes the update: do not train like this"


def _together(
    settings: TrainerConfig, cases: Sequence[Case], world: int, planted: bool
) -> list[tuple[Outcome, Outcome]]:
    """Each case alone, which is the first process' to do, and shared with all that torchrun or srun started."""
    single, count = replace(settings, strategy=Strategy.single, devices=1, num_nodes=1), micro_batches(world)
    return [
        (measured(single, case, count, False) if rank() == 0 else {}, measured(settings, case, count, planted))
        for case in cases
    ]


def forked(settings: TrainerConfig, cases: Sequence[Case], world: int, planted: bool) -> list[tuple[Outcome, Outcome]]:
    """The same with processes of this machine, on its cpu: they fork, so that no library is imported again."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        strategy = Strategy.fsdp if settings.strategy is Strategy.fsdp else Strategy.ddp
        local = replace(settings, accelerator="cpu", devices=world, num_nodes=1, strategy=strategy)
        start_processes(_process, (world, port, folder, local, cases, planted), nprocs=world, start_method="fork")
        files = [[Path(folder) / f"{number}-{kind}" for kind in ("one", "other")] for number in range(len(cases))]
        return [(load_file(one), load_file(other)) for one, other in files]


def _process(
    number: int, world: int, port: int, folder: str, settings: TrainerConfig, cases: Sequence[Case], planted: bool
) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(number), "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "selfcheck",
    }  # fmt: skip
    torch.set_num_threads(1)
    for place, pair in enumerate(_together(settings, cases, world, planted)):
        if number == 0:
            for kind, outcome in zip(("one", "other"), pair, strict=True):
                save_file(outcome, Path(folder) / f"{place}-{kind}")


def measured(settings: TrainerConfig, case: Case, count: int, planted: bool) -> Outcome:
    """A few steps of `count` micro-batches, as `settings` share them."""
    exact = case.precision is Precision.fp32
    with _default(torch.float64 if exact else torch.float32):
        settings = replace(settings, precision=case.precision, compile=False)
        config = TrainConfig(
            steps=STEPS, batch_size=count * ROWS, group_size=GROUP, model=_tiny(), trainer=settings,
            optim=OptimConfig(lr=RATE, warmup_steps=0),
        )  # fmt: skip
        model = _model(config)
        right = Instruct(model, ["all"], -(-count * ROWS // GROUP), case.reduction, token_nll)
        module = TrainingModule(model, config, PerMicroBatch(right, count) if planted else right, 1, Signals())
        alone = settings.strategy is Strategy.single
        world, own = (1, 0) if alone else (settings.devices * settings.num_nodes, rank())
        steps = [Step(n, [_batch(n, place) for place in range(own, count, world)], [], []) for n in range(STEPS)]
        recorder = Recorder()
        Trainer(
            **arguments(settings),
            max_steps=STEPS,
            max_epochs=1,
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        ).fit(module, DataLoader(steps, batch_size=None))  # type: ignore[arg-type]
    return recorder.outcome


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _model(config: TrainConfig) -> InstructBlip:
    return build(config.model, config.seed).to(torch.get_default_dtype())


def _tiny() -> ModelConfig:
    """Real classes that compute in whatever dtype they are given; LLaMA's and T5's norms would round to float32."""
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return ModelConfig(
        name="selfcheck",
        random_init=True,
        vision=VisionConfig(
            type="instructblip_vision_model", image_size=SIZE,
            config={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                    "patch_size": 14, "qkv_bias": True, "initializer_range": 0.1},
        ),
        qformer=QFormerConfig(
            num_query_tokens=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            cross_attention_frequency=1, vocab_size=WORDS, max_position_embeddings=16, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, initializer_range=0.1, tokenizer="",
        ),
        llm=LLMConfig(
            type="opt", tokenizer="", eos_token="</s>", pad_token="<pad>",
            config={"vocab_size": WORDS, "hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32,
                    "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32, "dropout": 0.0,
                    "init_std": 0.1, **ids},
        ),
    )  # fmt: skip


def _batch(step: int, place: int) -> Batch:
    """Micro-batch `place` of a step: responses of 0 to 5 tokens, so that every mean over a part is another one."""
    generator = torch.Generator().manual_seed(1000 * step + place)
    rows = torch.arange(place * ROWS, (place + 1) * ROWS)  # (B,) in the step
    targets = (rows * 7 + rows // 3) % TEXT  # (B,)
    targets[0] = targets[0].clamp(min=1)  # a micro-batch has one at least, or the planted mean would be none
    ids = torch.randint(3, WORDS, (ROWS, TEXT), generator=generator)  # (B, T)
    response = torch.arange(TEXT) >= TEXT - targets[:, None]  # (B, T)
    visible = torch.ones_like(ids)
    pixels = torch.randint(0, 256, (ROWS, 3, SIZE, SIZE), generator=generator).to(torch.uint8)
    return Batch(
        pixel_values=pixels,
        image_index=torch.arange(ROWS),
        qformer_input_ids=ids[:, :3],
        qformer_attention_mask=visible[:, :3],
        input_ids=ids,
        attention_mask=visible,
        labels=ids.masked_fill(~response, -100),
        loss_weight=response.to(torch.get_default_dtype()),
        recipe=torch.zeros(ROWS, dtype=torch.long),
        group=rows // GROUP,
        place=rows,
        uids=tuple(f"selfcheck/{row}" for row in rows.tolist()),
    )
