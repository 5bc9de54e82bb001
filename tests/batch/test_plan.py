"""The simulation of many jobs, held to closed forms."""

import json
import math
import time

import pytest

from avatar3d.batch.plan import (
    MEASURED,
    Cluster,
    Measured,
    StageCost,
    fit_costs,
    measured_in,
    simulate,
)
from avatar3d.batch.record import Record, StageRecord, write_record
from avatar3d.errors import UserError

HOUR = (StageCost("only", (3600.0, 0.0), stored_mb=(0.0, 10.0)),)


@pytest.mark.parametrize(("jobs", "machines", "slots"), [(1, 3, 1), (12, 2, 1), (101, 5, 4)])
def test_without_failures_jobs_come_in_rounds(jobs, machines, slots):
    result = simulate(jobs, 2.0, HOUR, Cluster(machines, slots, slowdown=1.5))
    assert result.hours == pytest.approx(1.5 * math.ceil(jobs / machines / slots))
    assert (result.finished, result.lost, result.wasted_hours) == (jobs, 0, 0)
    assert result.stored_gb == pytest.approx(jobs * 2 * 10 / 1000)


def test_crashes_are_retried_as_often_as_a_geometric_distribution_says():
    jobs, crash = 4000, 0.3
    result = simulate(jobs, 1.0, HOUR, Cluster(50, crash=crash, retries=100))
    assert result.finished == jobs
    assert result.busy_hours / jobs == pytest.approx(1 / (1 - crash), rel=0.04)
    limited = simulate(jobs, 1.0, HOUR, Cluster(50, crash=crash, retries=1))
    assert limited.failed / jobs == pytest.approx(crash**2, rel=0.2)


def test_lost_machines_cost_what_a_poisson_process_says():
    """Work T restarted at each loss of rate L takes (exp(LT) - 1) / L of busy time on average."""
    jobs, rate = 4000, 0.5
    result = simulate(jobs, 1.0, HOUR, Cluster(40, loss_per_hour=rate, repair_hours=0.2))
    assert result.finished == jobs
    assert result.busy_hours / jobs == pytest.approx((math.exp(rate) - 1) / rate, rel=0.04)
    assert result.wasted_hours == pytest.approx(result.busy_hours - jobs)
    losses = math.exp(rate) - 1
    assert result.hours == pytest.approx((result.busy_hours + losses * jobs * 0.2) / 40, rel=0.05)


def test_bad_clips_are_refused_once():
    result = simulate(5000, 1.0, MEASURED, Cluster(20, bad_clips=0.2))
    assert result.refused / 5000 == pytest.approx(0.2, rel=0.1)
    assert result.finished + result.refused == 5000


def test_costs_are_found_again_in_jobs_that_have_them():
    rows = [
        Measured(cost.stage, minutes, cost.at(minutes), cost.at(minutes, "cpu_seconds"), 0,
                 cost.memory_gb, cost.at(minutes, "stored_mb"))
        for minutes in (0.2, 0.5, 2.0)
        for cost in MEASURED
    ]  # fmt: skip
    for found, true in zip(fit_costs(rows), MEASURED, strict=True):
        assert found.seconds == pytest.approx(true.seconds, abs=1e-6)
        assert found.stored_mb == pytest.approx(true.stored_mb, abs=1e-6)


def test_the_finished_rows_of_a_library_are_measurements(tmp_path):
    for name, frames, status in (("a", 750, "done"), ("b", 3000, "done"), ("c", 750, "failed")):
        folder = tmp_path / name
        subject = folder / f"{name}.subject"
        subject.mkdir(parents=True)
        info = {
            "version": 1, "source_name": "a.mp4", "source_sha256": "0", "fps": 25.0,
            "frames": frames, "width": 64, "height": 64, "has_audio": False,
            "head_model": "anny",
        }  # fmt: skip
        (subject / "subject.json").write_text(json.dumps(info))
        cost = StageRecord(
            key="", seconds=frames / 10, cpu_seconds=frames / 5, peak_memory=2_000_000_000,
            bytes=frames * 1000,
        )  # fmt: skip
        start = StageRecord(key="", seconds=2.5, cpu_seconds=2.0, peak_memory=0, bytes=0)
        stages = {"train": cost, "capture": cost, "start": start}
        record = Record(name=name, video="a.mp4", status=status, stages=stages)
        write_record(folder, record)
    rows = measured_in(tmp_path)
    assert rows[1] == Measured("capture", 0.5, 75.0, 150.0, 0.0, 2.0, 0.75)
    assert [row.stage for row in rows] == ["start", "capture", "train"] * 2
    costs = fit_costs(rows)
    assert costs[2].at(4.0) == pytest.approx(600)  # 6000 frames
    assert costs[0].at(4.0) == pytest.approx(2.5)  # a process starts as fast for a long clip
    assert fit_costs(rows[:3])[0].at(4.0) == pytest.approx(2.5)  # of one length, too
    assert simulate(1, 4.0, costs, Cluster(1)).hours * 3600 == pytest.approx(2.5 + 600 + 600)
    with pytest.raises(UserError, match="no finished rows"):
        measured_in(tmp_path / "c")


def test_a_hundred_thousand_identities_take_seconds():
    start = time.process_time()
    cluster = Cluster(200, 2, 1.2, loss_per_hour=0.05, crash=0.01, bad_clips=0.05)
    result = simulate(100_000, 1.0, MEASURED, cluster)
    assert result.finished + result.refused + result.failed == 100_000
    assert time.process_time() - start < 10
