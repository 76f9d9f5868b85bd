"""The data report as JSON."""

from eyas.data.report import DataReport, Defect, Lengths, OverlapReport, SplitReport

SPLIT = SplitReport(
    paths=["a.jsonl"], formats=["text"], rows_read=3, bad_rows=0, rows=3, examples=3, tokens=30, supervised_tokens=27,
    lengths=Lengths(10, 10, 10, 10, 10, [3]), end_tokens=3, defects={"duplicates": Defect(1, ["a.jsonl:2"])},
    classes={}, digest="d",
)  # fmt: skip
REPORT = DataReport(SPLIT, SPLIT, OverlapReport(3, Defect(), Defect(1, ["a.jsonl:1 = a.jsonl:1"]), None))


def test_report_is_read_as_it_was_written():
    assert DataReport.from_dict(REPORT.as_dict()) == REPORT


def test_report_of_an_older_run_is_read_with_its_old_names():
    old = REPORT.as_dict()
    for split in (old["train"], old["evaluation"]):
        split["ends_learnt"] = split.pop("end_tokens")
    old["overlap"]["normalised"] = old["overlap"].pop("normalized")

    assert DataReport.from_dict(old) == REPORT
