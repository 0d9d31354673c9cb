"""Data sets of text: language models and translation."""

import re
from collections import Counter
from itertools import chain

import torch

from batchscaling import _validation as check
from batchscaling.training._torch_state import undisturbed
from batchscaling.training.data.base import Data, first, split
from batchscaling.training.data.order import generator
from batchscaling.training.data.registry import fetch, read

UNKNOWN, BEGIN, END = "<unk>", "<bos>", "<eos>"

PAD = 0
SPECIAL = ("<pad>", UNKNOWN, BEGIN, END)
"""First entries of a vocabulary for translation; padding has number `PAD`."""


@undisturbed
def tiny_shakespeare(*, length=64, validation=1000, seed=0, examples=None):
    """Return Tiny Shakespeare: 1,115,394 characters, 65 different ones [1]_.

    The text is cut into sequences; the label of each character is the one that follows.

    Parameters
    ----------
    length : int
        Characters in a sequence.
    validation : int
        Number of sequences held out for validation. They are drawn from the whole text, so it
        is that of the same plays as the training text, but of other places.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.
    examples : int, optional
        Number of training sequences, at most what `validation` leaves; all if not given.

    Returns
    -------
    Data
        Inputs and labels of shape (examples, length), without a test set. The vocabulary is the
        characters of the whole text, sorted.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    DataError
        If the file is missing or damaged, and cannot be downloaded.

    References
    ----------
    .. [1] Karpathy (2015), The unreasonable effectiveness of recurrent neural networks.
    """
    length = check.integer("length", length, 1)
    text = read(fetch("tinyshakespeare/input.txt")).decode("utf-8")
    vocabulary = tuple(sorted(set(text)))
    kept, held_out = split(_count(text, length), validation=validation, seed=seed)
    inputs, labels = _sequences(text, vocabulary, length)
    kept = first(kept, examples)
    return Data(
        inputs[kept],
        labels[kept],
        inputs[held_out],
        labels[held_out],
        vocabularies=(vocabulary,),
    )


@undisturbed
def wikitext2(*, length=35, validation=600, seed=0, examples=None, min_count=1):
    """Return a small language-modelling task from two of the three parts of WikiText-2 [1]_.

    The training text is WikiText-2's *validation* part: 217,646 words, a tenth of the real
    training part. Some of its sequences are held out for validation, and the test set is
    WikiText-2's own. So losses do not compare with published ones.

    The text is cut into sequences; the label of each word is the one that follows. A line ends
    with the word ``<eos>``.

    Parameters
    ----------
    length : int
        Words in a sequence.
    validation : int
        Number of sequences held out for validation. They are drawn from the whole training text,
        so from the same articles as the training sequences. Only the test set has other articles.
    seed : int
        Seed of the split. The split does not depend on the seeds of the trials.
    examples : int, optional
        Number of training sequences, at most what `validation` leaves; all if not given.
    min_count : int
        How often a word must come in the training sequences to be in the vocabulary.

    Returns
    -------
    Data
        Inputs and labels of shape (examples, length). The vocabulary is ``<unk>`` and the words
        of all sequences that `validation` leaves, the most frequent first, so it does not depend
        on `examples`. Any other word is ``<unk>``.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    DataError
        If a file is missing or damaged, and cannot be downloaded.

    References
    ----------
    .. [1] Merity, Xiong, Bradbury and Socher (2016), Pointer sentinel mixture models.
    """
    length = check.integer("length", length, 1)
    words, test = (_words_and_ends(f"wikitext-2/{part}.txt") for part in ("valid", "test"))
    kept, held_out = split(_count(words, length), validation=validation, seed=seed)
    pieces = (words[i * length : (i + 1) * length] for i in kept.tolist())
    vocabulary = _vocabulary((UNKNOWN,), pieces, min_count)
    inputs, labels = _sequences(words, vocabulary, length)
    kept = first(kept, examples)
    return Data(
        inputs[kept],
        labels[kept],
        inputs[held_out],
        labels[held_out],
        *_sequences(test, vocabulary, length),
        vocabularies=(vocabulary,),
    )


@undisturbed
def multi30k(*, source_length=24, target_length=24, min_count=2, seed=0, examples=None):
    """Return Multi30k, English to German: 29,000 pairs of one sentence each [1]_.

    Sentences are in lower case and are cut into words and punctuation marks. One tensor holds
    both inputs of an encoder and decoder: the first `source_length` columns are the English
    sentence, which ends with ``<eos>``; the others are what the decoder reads, ``<bos>`` and the
    German sentence. The labels are the German sentence and ``<eos>``. Each is cut at its length
    or padded: inputs with 0, which is ``<pad>``, labels with -1.

    Validation and test set are Multi30k's own: 1,014 pairs, and the 1,000 of Flickr 2016.

    Parameters
    ----------
    source_length, target_length : int
        Positions of the English and the German sentence. With 24, about 2 % of the
        training sentences are cut.
    min_count : int
        How often a word must come in the 29,000 training sentences to be in the vocabulary. Any
        other word is ``<unk>``.
    seed : int
        Seed of the choice of `examples`.
    examples : int, optional
        Number of training pairs, at most 29,000; all in their own order if not given.

    Returns
    -------
    Data
        Inputs of shape (examples, source_length + target_length), labels of shape (examples,
        target_length), and the vocabularies of source and target: ``<pad>``, ``<unk>``,
        ``<bos>``, ``<eos>``, then the words, the most frequent first.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    DataError
        If a file is missing or damaged, and cannot be downloaded.

    References
    ----------
    .. [1] Elliott, Frank, Sima'an and Specia (2016), Multi30K: multilingual English-German image
       descriptions.
    """
    source_length = check.integer("source_length", source_length, 1)
    target_length = check.integer("target_length", target_length, 1)
    parts = ("train", "val", "test_2016_flickr")
    english, german = ([_sentences(part, language) for part in parts] for language in ("en", "de"))
    source, target = (_vocabulary(SPECIAL, side[0], min_count) for side in (english, german))

    tensors = []
    for sources, targets in zip(english, german, strict=True):
        encoder = _padded([[*words, END] for words in sources], source, source_length, PAD)
        read_by_decoder = [[BEGIN, *words] for words in targets]
        decoder = _padded(read_by_decoder, target, target_length, PAD)
        labels = _padded([[*words, END] for words in targets], target, target_length, -1)
        tensors += [torch.cat([encoder, decoder], dim=1), labels]

    if examples is not None:
        chosen = torch.randperm(len(tensors[0]), generator=generator(seed, "split"))
        chosen = first(chosen, examples)
        tensors[:2] = [tensor[chosen] for tensor in tensors[:2]]
    return Data(*tensors, vocabularies=(source, target))


def _vocabulary(special, sequences, min_count):
    """Return `special` and all words that come often enough, the most frequent first."""
    min_count = check.integer("min_count", min_count, 1)
    counts = Counter(chain.from_iterable(sequences))
    words = [word for word in counts if counts[word] >= min_count and word not in special]
    return (*special, *sorted(words, key=lambda word: (-counts[word], word)))


def _numbers(sequences, vocabulary):
    number = {word: i for i, word in enumerate(vocabulary)}
    return [[number.get(word, number.get(UNKNOWN)) for word in words] for words in sequences]


def _count(text, length):
    """Return the number of whole sequences in a text; each needs one more label behind it."""
    return (len(text) - 1) // check.integer("length", length, 1, (len(text) - 1) // 2)


def _sequences(text, vocabulary, length):
    """Return inputs and labels, each of shape (sequences, length)."""
    count = _count(text, length)
    numbers = torch.tensor(_numbers([text[: count * length + 1]], vocabulary)[0])
    return numbers[:-1].view(count, length), numbers[1:].view(count, length)


def _words_and_ends(name):
    lines = read(fetch(name)).decode("utf-8").removesuffix("\n").split("\n")
    return [word for line in lines for word in (*line.split(), END)]


def _sentences(part, language):
    text = read(fetch(f"multi30k-en-de/{part}.{language}.gz")).decode("utf-8")
    lines = text.removesuffix("\n").lower().split("\n")
    return [re.findall(r"\w+|[^\w\s]", line) for line in lines]


def _padded(sentences, vocabulary, length, padding):
    """Return the numbers of all words, shape (sentences, length), cut or padded."""
    rows = _numbers((words[:length] for words in sentences), vocabulary)
    return torch.tensor([row + [padding] * (length - len(row)) for row in rows])
