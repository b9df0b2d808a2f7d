"""`report.py lens=true run=RUN scenes=200 against=RUN`: what the maps mean, measured on the embedded world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.progress import track

from instructblip.config.evaluation import ReportConfig
from instructblip.evaluation.lens.figures import DRAWS, compared, corrected, estimates, sheet
from instructblip.evaluation.lens.measuring import Measures, measure
from instructblip.evaluation.lens.scenes import Pair, pairs
from instructblip.evaluation.parts import Share
from instructblip.evaluation.predict import device
from instructblip.evaluation.subject import subject
from instructblip.evaluation.tables.rendering import Sheet
from instructblip.files import write_json
from instructblip.inference import Assistant
from instructblip.models.loaded import Loaded
from instructblip.revision import revision


def find(config: ReportConfig) -> tuple[Sheet, Path]:
    """The table, and the file in the run's `lens/` that holds it with every scene's numbers.

    Raises ValueError, before a model is loaded, for a run that is not there and for fewer than two scenes.
    """
    asked = [subject(config)]
    if config.against is not None:
        asked.append(subject(replace(config, run=config.against, checkpoint=None)))
        if asked[0].results == asked[1].results:
            raise ValueError(f"against={config.against} is the model that run= names; give another one")
    shown, place = pairs(config.scenes or 0, config.scene_seed), device(config.device, Share())
    found = [_measured(each.name, each.load(config, place), shown) for each in asked]
    names = [each.name for each in asked]
    told = [row for name, (_, layers, own) in zip(names, found, strict=True)
            for row in estimates(name, own, layers)]  # fmt: skip
    if len(asked) == 2:
        told += compared((names[0], names[1]), found[0][2], found[1][2])
    told = corrected(told)
    title = f"What {' against '.join(names)} looks at in {len(shown)} scenes of seed {config.scene_seed}"
    table = sheet(title, told)
    against = f"-against-{names[1].replace('/', '-')}" if len(asked) == 2 else ""
    path = asked[0].results / "lens" / f"scenes-{len(shown)}-s{config.scene_seed}{against}.json"
    facts = {
        "runs": names, "weights": [weights for weights, _, _ in found], "scenes": len(shown),
        "seed": config.scene_seed, "draws": DRAWS, "code": revision(), "sheet": asdict(table),
        "estimates": [asdict(each) for each in told], "items": [[asdict(each) for each in own] for _, _, own in found],
    }  # fmt: skip
    write_json(path, facts)
    return table, path


def _measured(name: str, loaded: Loaded, shown: Sequence[Pair]) -> tuple[str, list[int], list[Measures]]:
    """The checkpoint's hash, the layers that see the image, and what was measured. The model is let go afterwards."""
    assistant = Assistant.of(loaded)
    crossing = [layer.cross_attention is not None for layer in loaded.model.qformer.layers]
    found = [measure(assistant, pair) for pair in track(shown, description=name, transient=True)]
    return loaded.checkpoint[:12], [number for number, sees in enumerate(crossing) if sees], found
