import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from instructblip.miniature import tokenizers
from instructblip.miniature.knowledge import COLOUR_FACTS, SHAPE_FACTS
from instructblip.miniature.scenes import COLOURS, SHAPES, WORDS

TEXTS = [
    "",
    "What color is the circle?",
    'Based on the image, is this statement true or false? "The red circle is above the star." Answer:',
    "Dialog history: Is there a star? yes\n Question: Where is it? Short answer:",
    " It's 12.5 % -- (naïve) café, déjà vu…  two blanks\tand a tab ",
]


@pytest.fixture(scope="module")
def llm() -> Tokenizer:
    return Tokenizer.from_file(str(tokenizers.FOLDER / "llm_tokenizer.json"))


@pytest.fixture(scope="module")
def qformer() -> Tokenizer:
    return Tokenizer.from_file(str(tokenizers.FOLDER / "qformer_tokenizer.json"))


def test_rebuilding_gives_the_committed_files(tmp_path: Path) -> None:
    """In a process of its own: hash seeds differ between processes."""
    code = """
import sys
from pathlib import Path
from instructblip.miniature.tokenizers import write
write(Path(sys.argv[1]))
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=tokenizers.FOLDER.parents[1], check=True)
    for name in ("llm_tokenizer.json", "qformer_tokenizer.json"):
        committed = (tokenizers.FOLDER / name).read_bytes()
        assert (tmp_path / name).read_bytes() == committed
        assert len(committed) < 100_000


def test_special_ids(llm: Tokenizer, qformer: Tokenizer) -> None:
    assert [llm.token_to_id(token) for token in ("<pad>", "<s>", "</s>")] == [0, 1, 2]
    assert [qformer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [
        0,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_llm_text_survives_without_loss_and_without_specials(llm: Tokenizer, text: str) -> None:
    ids = llm.encode(text).ids
    assert not {0, 1, 2} & set(ids)
    assert llm.decode(ids) == text


def test_a_word_has_one_id_wherever_it_stands(llm: Tokenizer) -> None:
    for word in [*COLOURS, *SHAPES, "yes", "no", "true", "false"]:
        (alone,) = llm.encode(word).ids
        assert alone in llm.encode(f"the answer is {word}").ids


def test_some_answers_are_several_tokens(llm: Tokenizer) -> None:
    """Otherwise ranking candidates and generating would be the same thing."""
    assert len(llm.encode("top left").ids) == 2
    facts = [answer for fact in (*COLOUR_FACTS, *SHAPE_FACTS) for answer, _ in fact.answers.values()]
    lengths = {len(llm.encode(answer).ids) for answer in (*COLOURS, *facts)}
    assert {1, 2, 3} <= lengths


def test_printed_words_are_one_token_or_two(llm: Tokenizer) -> None:
    assert {len(llm.encode(word).ids) for word in WORDS} <= {1, 2}


def test_qformer_frames_and_lower_cases(qformer: Tokenizer) -> None:
    tokens = qformer.encode("What COLOR is the circle?").tokens
    assert tokens == ["[CLS]", "what", "color", "is", "the", "circle", "?", "[SEP]"]
    assert qformer.decode(qformer.encode("Where is the star").ids) == "where is the star"


def test_qformer_spells_unknown_english_words(qformer: Tokenizer) -> None:
    assert qformer.encode("zebra").tokens == ["[CLS]", "z", "##e", "##b", "##r", "##a", "[SEP]"]
    assert "[UNK]" not in qformer.encode("The quick brown fox; jumps over 13 lazy dogs (twice)!").tokens


def test_the_miniature_has_no_unknown_word(qformer: Tokenizer) -> None:
    texts = tokenizers.corpus()
    assert all("##" not in " ".join(qformer.encode(text).tokens) for text in texts[::7])
