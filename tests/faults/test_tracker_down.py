"""A tracker that is down: the run finishes without delay, and its record is kept."""

import shutil
import socket
import time

import pytest
import wandb

REFUSING = "http://127.0.0.1:9"


def timed(trained, *more):
    started = time.monotonic()
    run, _ = trained("smollm2_qlora_quickstart", *more)
    return run, time.monotonic() - started


def close_the_record():
    wandb.finish()
    wandb.teardown()  # what finish has written is in the file only once wandb's service has ended


@pytest.fixture
def wandb_down(monkeypatch):
    wandb.teardown()  # it reads its settings once a process
    monkeypatch.setenv("WANDB_BASE_URL", REFUSING)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    yield
    wandb.teardown()


@pytest.mark.slow
def test_a_wandb_server_that_refuses_connections_delays_a_run_by_less_than_ten_seconds(trained, wandb_down, caplog):
    plain, without = timed(trained, "run_directory=unused")
    for file in sorted(plain.path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()

    run, with_tracker = timed(trained, "tracking={report_to: wandb}")

    assert run.read_manifest()["status"] == "finished"
    assert with_tracker - without <= 10
    assert "Recording offline" in caplog.text and "127.0.0.1:9 does not answer" in caplog.text
    close_the_record()
    records = list(run.tracker.glob("wandb/offline-run-*/*.wandb"))
    assert len(records) == 1 and records[0].stat().st_size > 1000


@pytest.mark.slow
def test_wandb_offline_needs_no_server_and_no_login(trained, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    run, _ = trained("minilm_lora_sentiment", "tracking={report_to: wandb, mode: offline}")

    close_the_record()
    assert list(run.tracker.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_a_resumed_run_continues_its_own_records(trained, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    words = ["tracking={report_to: wandb, mode: offline}", "training.max_steps=4", "training.save_steps=2"]
    run, _ = trained("minilm_lora_sentiment", *words)
    close_the_record()
    began = run.read_manifest()["wandb_run"]
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoint(4))

    trained("minilm_lora_sentiment", *words, resume=True)

    close_the_record()
    assert run.read_manifest()["wandb_run"] == began
    assert len(list(run.tracker.glob(f"wandb/offline-run-*-{began}"))) == 2


def test_tensorboard_has_the_losses_that_metrics_jsonl_has(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = trained("minilm_lora_sentiment", "tracking={report_to: tensorboard}")

    events = EventAccumulator(str(run.tracker)).Reload()
    shown = [event.value for event in events.Scalars("train/loss")]
    kept = [line["loss"] for line in run.metric_lines() if "loss" in line]
    assert shown == pytest.approx(kept, rel=1e-3) and len(shown) == 2


@pytest.mark.slow
def test_a_wandb_server_that_answers_no_request_does_not_end_a_run(trained, wandb_down, monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")

        started = time.monotonic()
        run, _ = trained("minilm_lora_sentiment", "tracking={report_to: wandb}")
        seconds = time.monotonic() - started

    close_the_record()
    assert run.read_manifest()["status"] == "finished" and "Recording offline" in caplog.text
    assert "does not answer" not in caplog.text  # it did; what failed is the record's beginning
    assert seconds <= 20
    assert list(run.tracker.glob("wandb/offline-run-*/*.wandb"))
