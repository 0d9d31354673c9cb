import re

import numpy as np
import pytest
import torch

from batchscaling.training.data import multi30k, text, tiny_shakespeare, wikitext2

PLAY = "".join(f"Line {i}: to be, or not to be.\n" for i in range(60))
ARTICLES = " \n = Title = \n \n" + "".join(f" word{i % 7} rare{i} , <unk> .\n" for i in range(80))
TEST_ARTICLES = " word0 new word6 <unk>\n word1 rare3\n word2 word3 word4\n"
ENGLISH = ["A man, a T-shirt.", "A man!", "One two three four five six seven eight nine."]
GERMAN = ["Ein Mann, ein T-Shirt.", "Ein Mann\x85!", "Zwei."]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Small texts instead of the official ones."""
    files = {
        "input.txt": PLAY,
        "valid.txt": ARTICLES,
        "test.txt": TEST_ARTICLES,
        "train.en.gz": "\n".join(ENGLISH) + "\n",
        "train.de.gz": "\n".join(GERMAN) + "\n",
        "val.en.gz": "A dog.\n",
        "val.de.gz": "Ein Hund.\n",
        "test_2016_flickr.en.gz": "A man.\nA dog.\n",
        "test_2016_flickr.de.gz": "Ein Mann.\nEin Hund.\n",
    }
    monkeypatch.setattr(text, "fetch", lambda name: name.split("/")[1])
    monkeypatch.setattr(text, "read", lambda name: files[name].encode())


def words(numbers, vocabulary):
    return [vocabulary[number] for number in numbers.tolist()]


@pytest.mark.parametrize("length", [1, 7, 64])
def test_characters(small, length):
    data = tiny_shakespeare(length=length, validation=5)
    (vocabulary,) = data.vocabularies
    assert vocabulary == tuple(sorted(set(PLAY)))
    inputs = torch.cat([data.train_inputs, data.validation_inputs])
    labels = torch.cat([data.train_labels, data.validation_labels])
    assert inputs.dtype == labels.dtype == torch.int64
    assert len(data.validation_inputs) == 5
    count = (len(PLAY) - 1) // length
    pairs = [
        ("".join(words(row, vocabulary)), "".join(words(after, vocabulary)))
        for row, after in zip(inputs, labels, strict=True)
    ]
    starts = [i * length for i in range(count)]
    expected = [(PLAY[i : i + length], PLAY[i + 1 : i + 1 + length]) for i in starts]
    assert sorted(pairs) == sorted(expected)
    assert data.test_inputs is None


@pytest.mark.parametrize("load", [tiny_shakespeare, wikitext2])
def test_a_length_of_numpy_is_a_plain_one(small, load):
    found, expected = (load(length=length, validation=5) for length in (np.uint8(2), 2))
    assert torch.equal(found.train_inputs, expected.train_inputs)
    assert torch.equal(found.validation_labels, expected.validation_labels)


def test_words_come_from_the_training_sequences(small):
    data = wikitext2(length=5, validation=30)
    (vocabulary,) = data.vocabularies
    train = set(words(data.train_inputs.flatten(), vocabulary))
    assert train == set(vocabulary)
    assert vocabulary[0] == "<unk>"
    rare = {word for word in vocabulary if word.startswith("rare")}
    assert 20 < len(rare) < 80
    # In the held-out sequences, words of other lines are unknown: more of them than in the text.
    held_out = words(data.validation_inputs.flatten(), vocabulary)
    held_out_text = [word for word in held_out if word.startswith("rare")]
    assert held_out.count("<unk>") > 30 > len(held_out_text)

    # The test set's 12 words give two whole sequences; none of its own words is known.
    test = ["word0", "<unk>", "word6", "<unk>", "<eos>", "word1", "rare3", "<eos>", "word2"]
    test[6] = "rare3" if "rare3" in rare else "<unk>"
    assert data.test_inputs.shape == (2, 5)
    assert words(data.test_inputs[0], vocabulary) == test[:5]
    assert words(data.test_labels[0], vocabulary) == test[1:6]
    assert words(data.test_inputs[1, :4], vocabulary) == test[5:]


def test_frequent_words_come_first_and_rare_ones_can_be_left_out(small):
    whole = wikitext2(length=5, validation=1).vocabularies[0]
    assert len(whole) > 80
    assert set(whole[1:4]) == {"<eos>", ",", "."}
    frequent = wikitext2(length=5, validation=1, min_count=5).vocabularies[0]
    assert frequent == tuple(word for word in whole if not word.startswith(("rare", "=", "Title")))


def test_number_of_examples_leaves_split_and_vocabulary(small):
    few, whole = (wikitext2(length=5, validation=8, examples=n) for n in (3, None))
    assert few.vocabularies == whole.vocabularies
    assert torch.equal(few.train_inputs, whole.train_inputs[:3])
    assert torch.equal(few.validation_inputs, whole.validation_inputs)
    few, whole = (tiny_shakespeare(length=5, validation=8, examples=n) for n in (3, None))
    assert torch.equal(few.train_inputs, whole.train_inputs[:3])
    assert torch.equal(few.validation_labels, whole.validation_labels)


def test_translation(small):
    data = multi30k(source_length=6, target_length=8, min_count=1)
    source, target = data.vocabularies
    assert source[:5] == (*target[:4], "a") == ("<pad>", "<unk>", "<bos>", "<eos>", "a")
    assert data.train_inputs.shape == (3, 14) and data.train_labels.shape == (3, 8)

    first, second, third = data.train_inputs
    assert words(first[:6], source) == ["a", "man", ",", "a", "t", "-"]
    assert words(second[:6], source) == ["a", "man", "!", "<eos>", "<pad>", "<pad>"]
    assert words(first[6:], target) == ["<bos>", "ein", "mann", ",", "ein", "t", "-", "shirt"]
    assert words(third[6:], target) == ["<bos>", "zwei", "."] + ["<pad>"] * 5

    first, _, third = data.train_labels
    assert words(first, target) == ["ein", "mann", ",", "ein", "t", "-", "shirt", "."]
    assert words(third[:3], target) == ["zwei", ".", "<eos>"]
    assert third[3:].tolist() == [-1] * 5

    unseen = words(data.validation_inputs[0], source)[:4]
    assert unseen == ["a", "<unk>", ".", "<eos>"]
    assert words(data.validation_labels[0][:4], target) == ["ein", "<unk>", ".", "<eos>"]
    assert len(data.test_labels) == 2


def test_every_label_is_the_next_decoder_input(small):
    data = multi30k(source_length=6, target_length=8, min_count=1)
    decoder, labels = data.train_inputs[:, 6:], data.train_labels
    goes_on = decoder[:, 1:] != 0
    assert torch.equal(decoder[:, 1:][goes_on], labels[:, :-1][goes_on])


def test_rare_words_of_translations_are_unknown(small):
    data = multi30k(source_length=6, target_length=8)
    assert set(data.vocabularies[0][4:]) == {"a", "man", "."}
    assert set(data.vocabularies[1][4:]) == {"ein", "mann", "."}


def test_examples_of_translations_depend_on_the_seed(small):
    rows = multi30k(min_count=1).train_inputs.tolist()
    drawn = {
        tuple(map(rows.index, multi30k(min_count=1, examples=2, seed=seed).train_inputs.tolist()))
        for seed in range(20)
    }
    assert len(drawn) > 3
    assert all(len(set(pair)) == 2 for pair in drawn)


BAD = [
    (lambda: tiny_shakespeare(length=0), "length is 0"),
    (lambda: tiny_shakespeare(length=10**7), "length is 10000000"),
    (lambda: tiny_shakespeare(length=8.0), "length is 8.0"),
    (lambda: tiny_shakespeare(validation=10**7), "validation is 10000000"),
    (lambda: tiny_shakespeare(length=9, validation=5, seed=-1), "seed is -1"),
    (lambda: wikitext2(length=5, validation=5, examples=10**6), "examples is 1000000"),
    (lambda: wikitext2(length=5, validation=5, min_count=0), "min_count is 0"),
    (lambda: multi30k(source_length=0), "source_length is 0"),
    (lambda: multi30k(target_length=-1), "target_length is -1"),
    (lambda: multi30k(min_count=0), "min_count is 0"),
    (lambda: multi30k(examples=4), "examples is 4"),
    (lambda: multi30k(examples=2, seed=-1), "seed is -1"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(small, call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert "allowed: " in str(error.value)
