"""Variants of sentences: each rule on a sentence it fits, and one that it must leave alone."""

import random

import pytest

from asterisk.data import variants


@pytest.mark.parametrize(
    ("rule", "sentence", "expected"),
    [
        (variants.negate, "A man is playing a guitar", "A man is not playing a guitar"),
        (variants.negate, "A man is not playing a guitar", "A man is playing a guitar"),
        (variants.negate, "We can't see it", "We can see it"),
        (variants.negate, "A dog barks loudly", "no dog barks loudly"),
        (variants.negate, "Rain falls", None),
        (variants.swap, "A dog is chasing a black cat in the yard", "a black cat is chasing A dog in the yard"),
        (variants.swap, "The woman feeds a horse", "a horse feeds The woman"),
        (variants.swap, "A man is singing on the stage", None),
        (variants.make_passive, "a man is slicing a potato", "a potato is being sliced by a man"),
        (variants.make_passive, "a boy is throwing the ball", "the ball is being thrown by a boy"),
        (variants.make_passive, "a boy is standing in the road", None),
        (variants.shorten, "A boy is running on the grass", "A boy is running"),
        (variants.reorder, "A man and a woman are dancing", "a woman and A man are dancing"),
        (variants.reorder, "A man sings", None),
    ],
)
def test_rule(rule, sentence, expected):
    assert rule(sentence) == expected


def test_a_word_is_replaced():
    found = {variants.replace("a young man sleeps", random.Random(seed)) for seed in range(20)}
    assert {"a old man sleeps", "a young woman sleeps"} <= found
    assert variants.replace("nothing fits this", random.Random(0)) is None


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A man is playing a guitar.", ("a man", "is", "playing a guitar")),
        ("Two dogs running on the beach", ("two dogs", "are", "running on the beach")),
        ("A boy and a girl sitting on a bench", ("a boy and a girl", "are", "sitting on a bench")),
        ("The market opened early", None),
    ],
)
def test_clause_is_taken_apart(sentence, expected):
    clause = variants.parse_clause(sentence)
    assert (clause and (clause.subject, clause.auxiliary, clause.predicate)) == expected


def test_recombined_sentences_agree_in_number():
    clauses = [variants.parse_clause(text) for text in ("A man is singing", "Two dogs are running")]
    found = {text for seed in range(200) for text in variants.recombine(clauses, random.Random(seed))}
    assert {"a man is running", "two dogs are not singing", "there is no man singing"} <= found
    assert not found & {"a man are running", "two dogs is singing"}
