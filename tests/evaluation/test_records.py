"""Records of held-out rows on disk."""

from eyas.evaluation.records import read_records, write_records

RECORDS = [
    {"loss": 0.1234567890123456, "answer": "déjà\nvu", "right": {"exact match": True}},
    {"loss": 2.0, "answer": "", "prompt": [{"role": "user", "content": "“?”"}]},
]


def test_records_are_read_as_they_were_written(tmp_path):
    file = tmp_path / "report" / "tuned.jsonl"

    write_records(file, RECORDS)

    assert read_records(file) == RECORDS
    assert len(file.read_text().splitlines()) == 2 and "déjà" in file.read_text()
