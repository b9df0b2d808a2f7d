"""How a mixture is weighted: the paper's shares, the other weightings, units, and mixtures that must not be switched."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from instructblip import recipes
from instructblip.choices import Weighting
from instructblip.config.data import MixtureConfig
from instructblip.data.explain import MIXTURES, named
from instructblip.data.shares import incomplete, rows, shares
from instructblip.recipes import Recipe, Sampling
from tests.conftest import composed

PAPER = {  # PAPER D.4, before hand factors
    "coco_caption": 0.0923, "web_capfilt": 0.4566, "textcaps": 0.0406, "vqav2": 0.0817, "okvqa": 0.0116,
    "aokvqa": 0.0160, "ocrvqa": 0.1098, "vqav2_vqg": 0.0817, "okvqa_vqg": 0.0116, "aokvqa_vqg": 0.0160,
    "llava_conversation": 0.0295, "llava_detail": 0.0186, "llava_reasoning": 0.0340,
}  # fmt: skip
TWO = ("coco_caption", "vqav2")
SIZES = (566747, 443757)


def loaded(names: Sequence[str]) -> list[Recipe]:
    return [recipes.load(name) for name in names]


def p(names: Sequence[str] = TWO, **settings: Any) -> dict[str, float]:
    asked = shares(loaded(names), MixtureConfig(name="x", **settings))
    return {share.recipe.name: share.probability for share in asked}


def normalised(*weights: float) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def test_the_papers_probabilities() -> None:
    assert p(tuple(PAPER)) == pytest.approx(PAPER, abs=1e-4)


def test_a_factor_changes_a_dataset_before_renormalising() -> None:
    asked = named("paper")
    changed = p(tuple(PAPER), factors=asked.factors)
    assert changed["okvqa"] / changed["okvqa_vqg"] == pytest.approx(2)
    assert changed["aokvqa"] / changed["aokvqa_vqg"] == pytest.approx(0.5)
    assert sum(changed.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"weighting": Weighting.uniform}, (1, 1)),
        ({"weighting": Weighting.uniform, "factors": {"vqav2": 3.0}}, (1, 1)),  # factors correct the balancing
        ({"weighting": Weighting.proportional}, SIZES),
        ({"weighting": Weighting.temperature, "temperature": 1.0}, SIZES),
        ({"weighting": Weighting.temperature, "temperature": 2.0}, [math.sqrt(size) for size in SIZES]),
        ({"weighting": Weighting.temperature, "temperature": 3.0}, [size ** (1 / 3) for size in SIZES]),
        ({"weighting": Weighting.proportional, "factors": {"vqav2": 3.0}}, (SIZES[0], 3 * SIZES[1])),
    ],
)
def test_weightings(settings: dict[str, Any], weights: Sequence[float]) -> None:
    assert list(p(**settings).values()) == pytest.approx(normalised(*weights), rel=1e-12)


def test_another_unit_is_another_size() -> None:
    """294 thousand turns instead of 58 thousand dialogues: p from 0.030 to 0.064 (with the other figures as they are)."""
    turns = {"llava_conversation": Sampling(size=294_393, unit="turn")}
    assert p(tuple(PAPER))["llava_conversation"] == pytest.approx(0.030, abs=5e-4)
    assert p(tuple(PAPER), sizes=turns)["llava_conversation"] == pytest.approx(0.064, abs=5e-4)
    config = composed("train", "experiment=vicuna7b", "+mixture.sizes={llava_conversation: {size: 294393, unit: turn}}")
    assert config.mixture.sizes == turns


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"factors": {"okvqa": 2.0}}, "factors for .'okvqa'., which the mixture does not contain"),
        ({"sizes": {"okvqa": Sampling(1, "row")}}, "sizes for .'okvqa'."),
        ({"complete": {"okvqa": 1.0}}, "complete for .'okvqa'."),
        ({"factors": {"vqav2": 0.0}}, "a factor is above 0"),
        ({"sizes": {"vqav2": Sampling(0, "row")}}, "vqav2: a sampling size of 0"),
        ({"weighting": Weighting.temperature}, "temperature=None; it is a number above 0"),
        ({"weighting": Weighting.temperature, "temperature": -1.0}, "temperature=-1.0; it is a number above 0"),
        ({"temperature": 3.0}, "temperature=3.0 is not used by weighting=sqrt"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        p(**settings)


def test_a_recipe_without_a_size_needs_one() -> None:
    with pytest.raises(
        ValueError, match=r"vsr has no sampling size.*\+mixture\.sizes=\{vsr: \{size: 1000, unit: row\}\}"
    ):
        p(("vqav2", "vsr"))
    assert p(("vqav2", "vsr"), sizes={"vsr": Sampling(443757, "statement")})["vsr"] == pytest.approx(0.5)


def test_the_papers_mixtures_differ_in_the_web_captions_alone() -> None:
    held_in = composed("train", "experiment=vicuna7b").partition.held_in
    paper, urls, standin, without = map(named, ("paper", "paper_urls", "paper_558k", "no_web"))
    assert set(paper.otherwise) == {"paper_urls", "paper_558k", "no_web"}
    for other in (urls, standin, without):
        assert (other.factors, other.weighting, other.draw) == (paper.factors, paper.weighting, paper.draw)
    asked = {
        mixture.name: shares(loaded(recipes.select(mixture.recipes, {"held_in": held_in})[0]), mixture)
        for mixture in (paper, urls, standin, without)
    }
    of = {name: {share.recipe.name: share.probability for share in chosen} for name, chosen in asked.items()}
    assert of["paper"] == of["paper_urls"] == of["paper_558k"]
    assert "web_capfilt" not in of["no_web"] and len(of["no_web"]) == 12
    rest = 1 - of["paper"].pop("web_capfilt")
    assert of["no_web"] == pytest.approx({name: share / rest for name, share in of["paper"].items()})
    splits = {name: {share.recipe.name: share.split for share in chosen} for name, chosen in asked.items()}
    assert splits["paper_558k"].pop("web_capfilt") == "pretrain_558k"
    assert {*splits["paper_558k"].values(), *splits["paper"].values()} == {"train"}


def test_every_mixture_is_named_as_its_file() -> None:
    found = sorted(path.stem for path in MIXTURES.glob("*.yaml"))
    assert len(found) >= 5 and [named(name).name for name in found] == found


def manifest(data: Path, **prepared: int) -> None:
    folder = data / "tables" / "web_capfilt"
    folder.mkdir(parents=True, exist_ok=True)
    splits = {split: {"rows": count} for split, count in prepared.items()}
    (folder / "manifest.json").write_text(json.dumps({"splits": splits}))


def test_the_papers_mixture_stops_without_all_web_captions(tmp_path: Path) -> None:
    paper = named("paper")
    asked = shares(loaded(tuple(PAPER)), paper)
    web = asked[1]
    said = incomplete(asked, paper, tmp_path)
    assert said and "asks for 13,873,136 rows of web_capfilt/train, 0 are prepared" in said
    assert all(f"mixture={name}: " in said for name in ("paper_urls", "paper_558k", "no_web"))
    manifest(tmp_path, train=9_000_000, pretrain_558k=558_128)
    assert "9,000,000 are prepared" in (incomplete(asked, paper, tmp_path) or "")
    paper.complete["web_capfilt"] = 0.6
    assert incomplete(asked, paper, tmp_path) is None
    assert rows(web, paper, tmp_path) == 9_000_000


def test_another_split_does_not_pass_for_the_papers(tmp_path: Path) -> None:
    paper = named("paper")
    paper.splits = {"web_capfilt": "pretrain_558k"}
    manifest(tmp_path, pretrain_558k=558_128)
    assert "558,128 are prepared" in (incomplete(shares(loaded(tuple(PAPER)), paper), paper, tmp_path) or "")
