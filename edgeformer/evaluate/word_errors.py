"""Word error rate: how much of a transcript differs from what was said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.lazy import load_attribute

Words = Callable[[str], list[str]]
"""What the words of a text are, so that spelling alone is no error."""

_NO_PART_OF_A_WORD = re.compile(r"[^\w\s']")


@dataclass(frozen=True)
class WordErrors:
    """Errors in one transcript, or in many together.

    Attributes:
        errors: words that were replaced, left out or made up, as few as explain the transcript.
        words: that were said.
    """

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors per word; it may exceed 1. Made-up words count as if one word had been said where none was."""
        return self.errors / max(1, self.words)


def count_word_errors(said: str, heard: str, words: Words) -> WordErrors:
    """The edit distance (Levenshtein 1966) between the words of two texts."""
    reference, hypothesis = words(said), words(heard)
    distances = list(range(len(hypothesis) + 1))  # from the words said so far to each beginning of what was heard
    for count, word in enumerate(reference, 1):
        diagonal, distances[0] = distances[0], count
        for index, other in enumerate(hypothesis, 1):
            replaced = diagonal + (word != other)
            diagonal = distances[index]
            distances[index] = min(replaced, diagonal + 1, distances[index - 1] + 1)
    return WordErrors(distances[-1], len(reference))


def total(each: Iterable[WordErrors]) -> WordErrors:
    """Errors in all transcripts together: long ones weigh more."""
    found = list(each)
    return WordErrors(sum(one.errors for one in found), sum(one.words for one in found))


def simple_words(text: str) -> list[str]:
    """Lower case, without punctuation but for apostrophes; for any language that writes spaces."""
    return _NO_PART_OF_A_WORD.sub(" ", text.lower()).split()


def whisper_english_words() -> Words:
    """Words after Whisper's normaliser of English (Radford et al. 2022, appendix C): numbers, spelling, contractions.

    Raises:
        InputError: the package that has it is not installed.
    """
    try:
        normalise = load_attribute("whisper_normalizer.english:EnglishTextNormalizer")()
    except ImportError:
        raise InputError(
            "Whisper's normaliser of English needs the package whisper-normalizer: pip install 'edgeformer[speech]'"
        ) from None
    return lambda text: str(normalise(text)).split()
