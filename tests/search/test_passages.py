"""How documents are cut."""

from asterisk.search.documents import Block, Document
from asterisk.search.passages import TOKENS, cut

SENTENCES = [f"Sentence number {i} tells of a heron near the river." for i in range(60)]


def test_short_paragraphs_are_joined_and_headings_are_not(released_encoder):
    blocks = [Block("One.", ("A",), 3), Block("Two.", ("A",), 5), Block("Three.", ("A", "B"), 9)]
    passages = cut(Document("Title", blocks), released_encoder.tokenizer)
    assert [(p.text, p.headings, p.line) for p in passages] == [("One.\nTwo.", "A", 3), ("Three.", "A > B", 9)]
    assert passages[1].embedded == "Title\nA > B\nThree."


def test_long_paragraph_is_cut_behind_sentences_and_keeps_its_lines(released_encoder):
    passages = cut(Document("t", [Block("\n".join(SENTENCES), line=10)]), released_encoder.tokenizer)
    assert "\n".join(p.text for p in passages) == "\n".join(SENTENCES)
    for passage in passages:
        assert passage.text.endswith("river.")
        assert len(released_encoder.tokenizer.encode(passage.text, add_special_tokens=False)) <= TOKENS
        assert passage.line == 10 + SENTENCES.index(passage.text.split("\n")[0])
    assert len(passages) < 10


def test_text_without_spaces_is_cut_all_the_same(released_encoder):
    for text in ("ab1" * 5000, "水" * 4000, "a" * 10_000):
        passages = cut(Document("t", [Block(text)]), released_encoder.tokenizer)
        assert "".join(p.text for p in passages).replace("\n", "") == text


def test_title_is_not_repeated_as_a_heading(released_encoder):
    (passage,) = cut(Document("Boiler", [Block("Water.", ("Boiler", "Use"))]), released_encoder.tokenizer)
    assert passage.headings == "Use"


def test_empty_document_can_be_found_by_its_title(released_encoder):
    (passage,) = cut(Document("Shopping", []), released_encoder.tokenizer)
    assert passage.embedded == "Shopping"
