"""`dry_run=true`: what a run would do, hold and cost, and what is missing to do it, without any weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from instructblip.choices import Objective
from instructblip.config.training import TrainConfig
from instructblip.data.explain import explanation
from instructblip.data.shares import Share, members, shares
from instructblip.models.instructblip import InstructBlip
from instructblip.models.skeleton import skeleton
from instructblip.training.devices import known
from instructblip.training.flops import Counts, StepFlops
from instructblip.training.plan import paper
from instructblip.training.plan.lengths import Lengths, mean_lengths
from instructblip.training.plan.memory import Setting, Texts, parameters
from instructblip.training.plan.missing import missing
from instructblip.training.plan.proposal import configured, longest, peak, proposed

GPUS = ("RTX 3090", "A100", "H100", "H200")  # the first has 24 GB, as the pilots ask for
PAPERS_MEMORY = 40.0  # GB of the paper's A100


def show(config: TrainConfig) -> None:
    """Prints the plan: figures, mixture, parameters, memory, cost, the paper beside it, and what is not there yet."""
    console = Console(highlight=False)
    chosen, absent = members(config.mixture, config.partition.groups())
    console.print(_figures(config))
    asked = [] if absent else shares(chosen, config.mixture)
    if asked:
        data = Path(config.paths.data)
        console.print(explanation(asked, config.mixture, config.steps, config.batch_size, data))
    for part in _pages(config, asked):
        console.print(part, soft_wrap=isinstance(part, str))
    lacking = missing(config, chosen, absent)
    console.print(
        "\n".join(["missing:", *(f"  {line}" for line in lacking)]) if lacking else "nothing is missing",
        soft_wrap=True,
    )


def _pages(config: TrainConfig, asked: list[Share]) -> Iterator[RenderableType]:
    if config.objective is Objective.stage1:
        yield "parameters, memory and FLOPs of BLIP-2's first stage are not reckoned"
        return
    try:
        model = skeleton(config.model)
    except ValueError as error:
        yield f"parameters, memory and FLOPs are not known: {error}"
        return
    lengths = mean_lengths(asked, Path(config.paths.data))
    yield from _parameters(model)
    yield from _memory(config, model, configured(config), lengths)
    yield from _cost(config, model, asked, lengths)
    if rows := paper.comparison(config):
        yield _beside_the_paper(rows)
    if config.plan.gpus or config.plan.memory_gb:
        yield _proposal(config, model)


def _figures(config: TrainConfig) -> Table:
    optim, table = config.optim, Table("run", config.name, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    groups = config.batch_size // config.group_size
    rows = {
        "model": config.model.name,
        "steps": f"{config.steps:,}",
        "global batch": f"{config.batch_size} samples = {groups} groups of {config.group_size}",
        "samples": f"{config.steps * config.batch_size:,}",
        "learning rate": f"{optim.warmup_lr:g} to {optim.lr:g} in {optim.warmup_steps:,} steps, "
        f"{optim.schedule.value} to {optim.min_lr:g}",
        "AdamW": f"betas {optim.betas}, weight decay {optim.weight_decay}",
        "loss": f"mean over {config.loss.reduction.value}s",
        "mixture": f"{config.mixture.name}: {config.mixture.weighting.value}, {config.mixture.draw.value} draws",
        "devices": f"{config.trainer.num_nodes} x {config.trainer.devices} {config.trainer.accelerator}, "
        f"micro-batch {config.trainer.micro_batch_size}, {config.trainer.precision.value}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def _parameters(model: InstructBlip) -> Iterator[RenderableType]:
    counted = parameters(model)
    table = _table("parameters", "frozen", "trainable")
    for part, number in counted.items():
        table.add_row(part, f"{number.frozen:,}", f"{number.trainable:,}")
    frozen, trainable = sum(n.frozen for n in counted.values()), sum(n.trainable for n in counted.values())
    table.add_section()
    table.add_row("all", f"{frozen:,}", f"{trainable:,}")
    yield table
    if unread := counted["qformer"].frozen:
        yield f"the Q-Former's frozen {unread:,} cannot learn; LAVIS counts them: {trainable + unread:,} trainable"


def _memory(config: TrainConfig, model: InstructBlip, setting: Setting, lengths: Lengths) -> Iterator[RenderableType]:
    """Three columns: mean texts, the longest texts there may be, and these with activation checkpointing."""
    mean, limits = Texts(lengths.prompt, lengths.response), longest(config)
    peaks = [
        peak(model, config, setting, mean),
        peak(model, config, setting, limits),
        peak(model, config, replace(setting, checkpointing=True), limits),
    ]
    table = _table("GB (10^9) a GPU", "mean texts", "longest texts", "recomputed")
    for part in peaks[0].parts:
        if any(each.parts[part] for each in peaks):
            table.add_row(part, *(_gigabytes(each.parts[part]) for each in peaks))
    table.add_section()
    table.add_row("peak", *(_gigabytes(each.total) for each in peaks))
    yield table
    yield (
        f"{setting.strategy} on {setting.gpus}, micro-batch {setting.micro_batch_size}, {setting.precision.value}; "
        f"mean {mean.prompt:.0f} + {mean.response:.0f} tokens, longest {limits.prompt} + {limits.response} in every "
        "row; recomputed: longest, with activation checkpointing\n"
        "weights, gradients and optimizer are exact, the rest is reckoned"
    )


def _cost(config: TrainConfig, model: InstructBlip, asked: list[Share], lengths: Lengths) -> Iterator[RenderableType]:
    sample = Counts(1 / config.per_image, 1, lengths.prompt + 2, lengths.prompt, lengths.response)
    parts = StepFlops(model).parts(sample)
    flops = sum(part.total for part in parts.values())
    run, mfu = flops * config.steps * config.batch_size, config.plan.mfu
    counts = sorted({1, config.plan.gpus or configured(config).gpus})
    table = _table(f"hours at MFU {mfu:.0%}", *(f"on {count}" for count in counts), "peak TFLOP/s")
    for device in map(known, GPUS):
        assert device is not None
        hours = (f"{run / (device.peak * mfu) / 3600 / count:,.1f}" for count in counts)
        table.add_row(device.matches, *hours, f"{device.peak / 1e12:g}")
    yield table
    shares = ", ".join(f"{name} {part.total / flops:.0%}" for name, part in parts.items())
    yield f"{_unit(flops)} a sample ({shares}), {_unit(run)} in all"
    yield f"MFU {mfu:.0%} is an assumption (plan.mfu); reading, validation and waiting are not in it"
    if lengths.estimated:
        which = "the mixture" if len(lengths.estimated) == len(asked) else ", ".join(lengths.estimated)
        yield f"text lengths are estimates, for want of prepared tables of {which}"
    a100 = known(paper.GPU)
    if paper.comparison(config) and a100:
        budget = paper.GPUS * paper.HOURS
        yield (
            f"the paper: {paper.GPUS} A100 for under {paper.HOURS:g} hours = {budget:g} GPU hours, "
            f"MFU {run / (budget * 3600 * a100.peak):.1%} or more"
        )


def _beside_the_paper(rows: list[paper.Row]) -> Table:
    table = _table("beside the paper", "paper", "here", "equal")
    for row in rows:
        table.add_row(row.name, _said(row.paper), _said(row.here), "yes" if row.equal else "[bold]NO[/]")
    return table


def _proposal(config: TrainConfig, model: InstructBlip) -> str:
    gpus, memory = config.plan.gpus or configured(config).gpus, config.plan.memory_gb or PAPERS_MEMORY
    found = proposed(model, config, gpus, memory * 1e9)
    setting, per_gpu = found.setting, -(-config.batch_size // gpus)
    layout = (
        f"{setting.strategy}, micro-batch {setting.micro_batch_size}, {per_gpu} samples a GPU and step, "
        f"{'with' if setting.checkpointing else 'without'} activation checkpointing: "
        f"peak {found.peak.total / 1e9:.1f} GB with the longest texts"
    )
    if found.short:
        return f"{gpus} GPUs of {memory:g} GB: does not fit, {found.short / 1e9:.1f} GB short at best ({layout})"
    trainer = {"single": "gpu"}.get(setting.strategy, setting.strategy)
    return (
        f"{gpus} GPUs of {memory:g} GB: {layout}; the global batch stays {config.batch_size}:\n"
        f"  trainer={trainer} trainer.devices={gpus} trainer.micro_batch_size={setting.micro_batch_size} "
        f"trainer.activation_checkpointing={str(setting.checkpointing).lower()}"
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f}" if size >= 5e6 else f"{size / 1e9:.5f}"


def _unit(flops: float) -> str:
    for size, name in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if flops >= size:
            return f"{flops / size:,.2f} {name}"
    return f"{flops / 1e6:,.2f} MFLOP"


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
