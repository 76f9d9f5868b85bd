"""Demo downloads have the pinned digests, and the rows are as documented."""

import pytest

from eyas.demo.assets import Asset, fetch
from eyas.demo.sentences import _as_chat, _sentiment
from eyas.errors import DataError


def test_a_file_with_another_digest_is_refused_and_not_opened(tmp_path):
    (tmp_path / "thing.whl").write_bytes(b"something else")

    with pytest.raises(DataError, match="not the pinned abc; remove it and try again"):
        fetch(Asset("thing==1", "thing.whl", "abc"), tmp_path, print)


@pytest.mark.parametrize(
    ("rating", "sentiment"),
    [(-0.8, "neutral"), (0.8, "neutral"), (0.81, "positive"), (-0.81, "negative"), (4.0, "positive")],
)
def test_neutral_is_within_eight_tenths(rating, sentiment):
    assert _sentiment(rating) == sentiment


def test_a_chat_requests_json_and_its_answer_is_json():
    chat = _as_chat({"text": "fine.", "source": "tweet", "sentiment": "positive"})["messages"]

    assert [message["role"] for message in chat] == ["system", "user", "assistant"]
    assert chat[2]["content"] == '{"source": "tweet", "sentiment": "positive"}'
