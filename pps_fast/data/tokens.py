"""Sentences as word classes, and how likely each word is to be hidden.

The rules are those of the published code, which used a Treebank word tokenizer and a part-of-speech tagger:
content words weigh 2, all other tokens 1, and the hiding probabilities are the softmax of the weights. Here
a list of closed-class words stands in for the tagger; everything outside the list is a content word.

Letters: M sentences.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

_OPENING_QUOTE = re.compile(r'(?<![^\s(\[{<])"')
_OTHER_QUOTE = re.compile(r"\"|''")
_FINAL_PERIOD = re.compile(r"""(?<!\.)\.(?=[\])}>"'»”’\s]*$)""")
_MARKS = re.compile(r"\.{2,}|--|`+|[;@#$%&?!()\[\]{}<>«»“”‘’„]|[:,](?!\d)")
_OPENING_APOSTROPHE = re.compile(r"(?<!\S)'(?=\w)(?!(?:re|ve|ll|[mtsdn])\b)")
_CLITIC = re.compile(r"(?<=[^'\s])('s|'m|'d|'ll|'ve|'re|n't|')(?!\S)")
_FUSED = re.compile(r"\b(can)(not)\b|\b(gim|lem)(me)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b")


def tokenize(sentence: str) -> list[str]:
    """Splits a sentence into lower-case tokens by the Treebank rules; punctuation marks are tokens.

    A period is split off only at the end of the sentence ("mr. x sits." gives mr. / x / sits / .), clitics are
    tokens of their own ("don't" gives do / n't, "man's" gives man / 's), hyphenated words stay whole.
    """
    text = sentence.lower()
    # before anything is set off by blanks, after which a closing quote would look like an opening one
    text = _OPENING_QUOTE.sub(" `` ", text)
    text = _OTHER_QUOTE.sub(" '' ", text)
    text = _FINAL_PERIOD.sub(" . ", text)
    text = _MARKS.sub(r" \g<0> ", text)
    text = _OPENING_APOSTROPHE.sub("' ", text)
    text = _CLITIC.sub(r" \1", text)
    text = _FUSED.sub(lambda match: " ".join(part for part in match.groups() if part), text)
    return text.split()


# words of the closed classes; adverbs (then, how, not, down) are content words to a tagger and stay out
FUNCTION_WORDS = frozenset(
    " ".join(
        (
            # determiners
            "a an the this that these those some any all both each every either neither no another half",
            # pronouns and possessives
            "i me my mine myself you your yours yourself yourselves he him his himself she her hers herself",
            "it its itself we us our ours ourselves they them their theirs themselves themself",
            "who whom whose which what whoever whatever whichever",
            "someone somebody something anyone anybody anything everyone everybody everything",
            # prepositions, verb particles and subordinating conjunctions
            "to of in on at by for from with without within into onto unto upon out off up over under underneath",
            "above below beneath beside besides between among amongst amid against along alongside across around",
            "about after before behind beyond during until till through throughout toward towards inside outside",
            "near past per via despite except atop like unlike as than since because although though while whilst",
            "if unless whether so that",
            # coordinating conjunctions
            "and or but nor yet plus",
            # modal verbs and existential there
            "can could will would shall should may might must ca wo there",
            # numbers
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
            "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand",
            # clitics and interjections
            "'s 'd 'll oh hey yes hello",
        )
    ).split()
)


def word_weight(token: str) -> int:
    """Returns 2 for a content word, 1 for a closed-class word, a number or a punctuation mark."""
    has_letter = any(character.isalpha() for character in token)
    return 2 if has_letter and token not in FUNCTION_WORDS else 1


def hiding_probabilities(tokens: list[str]) -> np.ndarray:
    """Softmax of the word weights of one sentence's kept tokens, so that a content word is e times more likely.

    Returns:
        [len(tokens)] float64, sums to 1.
    """
    raised = np.exp(np.array([word_weight(token) for token in tokens], dtype=np.float64))
    return raised / raised.sum()


@dataclass(frozen=True, kw_only=True)
class EncodedSentences:
    """The kept words of M sentences.

    Attributes:
        word_ids: [M, L] int64 classes, 0 after the last word.
        num_words: [M] int64, 0 for a sentence without any known word.
        hide_prob: [M, L] float32; a row sums to 1, or to 0 for a sentence without any known word.
        num_unknown: [M] int64, tokens outside the vocabulary.
        num_cut: [M] int64, known tokens after the first L.
        num_content: [M] int64, content words among the kept tokens.
    """

    word_ids: np.ndarray
    num_words: np.ndarray
    hide_prob: np.ndarray
    num_unknown: np.ndarray
    num_cut: np.ndarray
    num_content: np.ndarray

    def keep(self, is_kept: np.ndarray) -> EncodedSentences:
        """Returns the sentences where the [M] bool array is true."""
        return EncodedSentences(**{item.name: getattr(self, item.name)[is_kept] for item in fields(self)})


_COUNTS = ("num_words", "num_unknown", "num_cut", "num_content")


def count_tokens(sentences: list[str]) -> Counter[str]:
    """Counts the tokens of all sentences, in order of first appearance."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(tokenize(sentence))
    return counts


def encode_sentences(sentences: list[str], words: list[str], max_num_words: int) -> EncodedSentences:
    """Maps sentences to the classes of their known words, keeping the first `max_num_words` of them.

    Args:
        sentences: M sentences.
        words: V words; a word's class is its index, index 0 is the padding.
        max_num_words: L, at least 1.
    """
    classes = {word: index for index, word in enumerate(words) if index > 0}
    shape = (len(sentences), max_num_words)
    encoded = EncodedSentences(
        word_ids=np.zeros(shape, dtype=np.int64),
        hide_prob=np.zeros(shape, dtype=np.float32),
        **{name: np.zeros(len(sentences), dtype=np.int64) for name in _COUNTS},
    )
    for row, sentence in enumerate(sentences):
        tokens = tokenize(sentence)
        known = [token for token in tokens if token in classes]
        kept = known[:max_num_words]
        encoded.word_ids[row, : len(kept)] = [classes[token] for token in kept]
        encoded.hide_prob[row, : len(kept)] = hiding_probabilities(kept)
        encoded.num_words[row] = len(kept)
        encoded.num_unknown[row] = len(tokens) - len(known)
        encoded.num_cut[row] = len(known) - len(kept)
        encoded.num_content[row] = sum(word_weight(token) == 2 for token in kept)
    return encoded
