"""What a frozen language model of an embedded world knows from text: the card that lies beside its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from instructblip.evaluation.tables.rendering import Sheet
from instructblip.evaluation.tables.results import Result
from instructblip.files import read_json

CARD = "card.json"  # beside the weights that `instructblip.miniature.backbone` ships
HEADER = ("language model", "program", "told the scene", "not told it", "prior")


def sheet(found: Sequence[Result]) -> Sheet | None:
    """Of every language model of these runs that has a card; None when none has."""
    cards = dict(_cards(found))
    if not cards:
        return None
    families: dict[str, Any] = {family: told for card in cards.values() for family, told in card["families"].items()}
    lines = [
        [family, program, *(f"{share[key]:.3f}" for key in ("told", "untold", "prior"))]
        for family, told in families.items()
        for program, share in told["programs"].items()
    ]
    notes = ["Exact answers about scenes never told. What held-out sets ask it may know, as Vicuna and FlanT5 do."]
    notes += [f"{family}: perplexity of the responses {told['perplexity']:.3f}" for family, told in families.items()]
    for path, card in cards.items():
        notes.append(f"{path}: {card['command']}; too little of: {', '.join(card['lacking']) or 'nothing'}")
    return Sheet("What the frozen language models know from text", HEADER, lines, notes)


def _cards(found: Sequence[Result]) -> Iterator[tuple[Path, Any]]:
    for result in found:
        weights = result.config.get("model", {}).get("llm", {}).get("weights")
        card = Path(weights).with_name(CARD) if weights else None
        if card and card.is_file():
            yield card, read_json(card)
