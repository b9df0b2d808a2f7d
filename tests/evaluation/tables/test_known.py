"""What a frozen language model knows from text is told where its card lies, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from instructblip.evaluation.tables import known
from instructblip.evaluation.tables.report import embedded
from instructblip.evaluation.tables.results import results
from instructblip.files import write_json

from .conftest import Made

SHARE = {"told": 0.97, "untold": 0.51, "prior": 0.5}
CARD = {
    "command": "python -m made", "lacking": ["llama where"],
    "families": {"llama": {"perplexity": 1.234, "programs": {"exists": SHARE, "where": SHARE | {"told": 0.8}}}},
}  # fmt: skip


def test_the_card_beside_the_weights_is_told(make: Made, runs: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights" / "llama.safetensors"
    model = {"random_init": True, "llm": {"weights": str(weights)}}
    for seed in (1, 2):
        make("miniature", seed=seed, config={"model": model}, vsr={"value": 0.5, "n": 9, "metric": "multiple_choice"})
    found = results([], runs)
    assert known.sheet(found) is None
    weights.parent.mkdir()
    write_json(weights.with_name("card.json"), CARD)
    sheet = known.sheet(found)
    assert sheet is not None and len(sheet.lines) == 2
    assert sheet.lines[1] == ["llama", "where", "0.800", "0.510", "0.500"]
    notes = "\n".join(sheet.notes)
    assert "perplexity of the responses 1.234" in notes and "python -m made; too little of: llama where" in notes
    assert [each.title for each in embedded(found, 10)].count(sheet.title) == 1
