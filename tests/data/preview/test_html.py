"""Batches as a page that fetches and runs nothing."""

import re
from html.parser import HTMLParser

from eyas.data.preview.batch import Batch, BatchRow, Document, Token
from eyas.data.preview.html import page
from eyas.data.rows import Place

NASTY = "</span><script>alert('&lt;')</script>"


class Reader(HTMLParser):
    """Notes tags with their attributes, and the text of each element that is open."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))


def made(class_name=None):
    tokens = [
        Token(0, 5, -100, NASTY, "masked"),
        Token(1, 6, 6, "", "trained"),
        Token(2, 7, 7, "é\n", "trained"),
        *[Token(position, 0, -100, "", "padding") for position in (3, 4, 5)],
    ]
    documents = [Document(tokens, [Place(f"{NASTY}.jsonl", 3)], 9), Document(tokens[:1], [Place("y.jsonl", 1)], 1)]
    return page(f"my {NASTY}", f"data: {NASTY}", [Batch([BatchRow(documents, class_name)])])


def test_text_of_a_row_is_escaped():
    read = Reader(made(class_name=NASTY))

    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "img", "link", "iframe", "a"})
    assert ("span", NASTY) in read.text and ("pre", f"data: {NASTY}") in read.text
    assert ("title", f"my {NASTY}: what the trainer gets") in read.text
    assert read.open == []


def test_page_fetches_and_runs_nothing():
    text = made()

    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<img|\bon\w+=", text)
    assert "default-src 'none'" in text and '<meta charset="utf-8">' in text and "width=device-width" in text
    assert "prefers-color-scheme: dark" in text


def test_title_of_a_token_has_its_position_id_and_label():
    spans = [attributes for tag, attributes in Reader(made()).tags if tag == "span" and "title" in attributes]

    assert spans[0] == {"class": "masked", "title": "position 0: id 5, label -100"}
    assert spans[1] == {"class": "trained", "title": "position 1: id 6, label 6\nposition 2: id 7, label 7"}
    assert spans[2] == {"class": "padding", "title": "positions 3 to 5: id 0"}


def test_rows_documents_and_cuts_are_marked():
    text = made()

    assert text.count("<article>") == 1 and text.count('<div class="document">') == 2
    assert '<span class="cut">cut: 6 of 9 tokens lost</span>' in text
    assert "⋯ 3 padding" in text and "é↵\n" in text


def test_legend_counts_tokens_of_each_kind():
    legend = made().partition('<p class="legend">')[2].partition("</p>")[0]

    assert re.findall(">([^<]+)</span>", legend) == ["2 trained", "2 masked", "3 padding", "↵ line end"]
