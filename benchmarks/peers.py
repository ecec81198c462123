"""Figures to stand beside ours: Airflow 3.3.2 on PostgreSQL, on the same kind of machine (2 cores).

Taken with the same shapes of DAGs and the same meaning, as shipped and after tuning
(``scheduler_idle_sleep_time`` 50 ms, ``max_tis_per_query`` 512, ``parallelism`` 512).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["FIGURES", "Figure"]


class Figure(NamedTuple):
    """One row of the table.

    Attributes:
        what: what the figure means.
        unit: of all its numbers.
        better: which way is better.
        target: what Roost is to reach.
        shipped: Airflow as it comes; None where it has no such figure.
        tuned: Airflow after tuning, where that was measured.
    """

    what: str
    unit: str
    better: Literal["lower", "higher"]
    target: float | None
    shipped: float | None
    tuned: float | None = None


FIGURES: dict[str, Figure] = {
    "hop_p50_ms": Figure("end of a task -> start of the next, p50", "ms", "lower", 5, 1030, 180),
    "hop_p90_ms": Figure("the same, p90", "ms", "lower", None, None),
    "trigger_to_first_ms": Figure(
        "trigger a run -> its first task starts", "ms", "lower", 30, 1150, 210
    ),
    "start_to_first_s": Figure("process start -> first task runs", "s", "lower", 1.5, 5.5),
    "fan_per_s": Figure(
        "500 independent no-op tasks, a process each", "/s", "higher", 300, 2.9, 4.7
    ),
    "many_per_s": Figure("100 DAGs x 10 chained tasks", "/s", "higher", 300, 5.3),
    "sched_chains_per_s": Figure("decisions: 100 runs of chains", "/s", "higher", 3000, 23, 46),
    "sched_wide_per_s": Figure("decisions: 1 run of 1,000 tasks", "/s", "higher", 3000, 40, 339),
    "deferred_per_s": Figure("tasks into deferred, 1,000", "/s", "higher", 300, 6.3),
    "resume_first_ms": Figure("common moment -> first resume", "ms", "lower", 20, 2800),
    "resumed_per_s": Figure("resumed and finished, 1,000", "/s", "higher", 300, 7),
    "resume_p99_s": Figure("lateness of a resume, p99", "s", "lower", None, None),
    "capacity_taken_s": Figure("10,000 poll triggers picked up", "s", "lower", 3, None, 45),
    "capacity_kb_each": Figure("memory per poll trigger, 10,000", "KB", "lower", 4, None, 27),
    "capacity_waiting_cpu_pct": Figure("CPU while 10,000 wait, of one core", "%", "lower", 5, None),
    "weights_sleep_kb_each": Figure(
        "in the runner, each of 10,000: a sleep", "KB", "lower", 4, None
    ),
    "weights_process_kb_each": Figure("the same: ProcessTrigger", "KB", "lower", 4, None),
    "weights_file_kb_each": Figure("the same: FileTrigger", "KB", "lower", 4, None),
    "weights_redis_stream_kb_each": Figure("the same: RedisStreamTrigger", "KB", "lower", 4, None),
    "weights_amqp_kb_each": Figure("the same: AmqpTrigger", "KB", "lower", 4, None),
    "external_resumed_p50_ms": Figure(
        "event sent -> start of execute_complete, p50", "ms", "lower", 20, None
    ),
    "external_resumed_p99_ms": Figure("the same, p99", "ms", "lower", 200, None),
    "poll_resumed_p50_ms": Figure("poll trigger fires -> the same, p50", "ms", "lower", 20, None),
    "poll_resumed_p99_ms": Figure("the same, p99", "ms", "lower", 200, None),
    "timer_resumed_p50_ms": Figure("moment of a timer -> the same, p50", "ms", "lower", 20, None),
    "timer_resumed_p99_ms": Figure("the same, p99", "ms", "lower", 200, None),
    "timers_grown_mb": Figure(
        "triggerer with 1,000,000 timers (SQLite: 100,000): memory above idle",
        "MB",
        "lower",
        10,
        None,
    ),
    "timers_waiting_cpu_pct": Figure("the same: CPU while they wait", "%", "lower", None, None),
    "timers_p50_ms": Figure(
        "lateness of a timer at 2,000 due a second, p50", "ms", "lower", None, None
    ),
    "timers_p99_ms": Figure("the same, p99", "ms", "lower", 1000, None),
    "timers_p99_at_the_end_ms": Figure(
        "the same, p99 of the last quarter", "ms", "lower", 1000, None
    ),
    "timers_together_per_s": Figure("10,000 timers due together: fired", "/s", "higher", 5000, 100),
    "failover_runner_killed_s": Figure(
        "runner killed -> its 1,000 triggers run again", "s", "lower", 2, None
    ),
    "failover_runner_stopped_s": Figure("runner stopped -> the same", "s", "lower", 2, None),
    "failover_triggerer_killed_s": Figure(
        "triggerer killed -> its half of 1,000 run at the other", "s", "lower", 15, None
    ),
    "failover_beside_scheduler_s": Figure(
        "the same, where a scheduler of that host lives", "s", "lower", 15, None
    ),
    "failover_host_lost_s": Figure("host lost -> the same at the other's", "s", "lower", 15, None),
    "failover_even_s": Figure(
        "a second triggerer joins -> 45-55 % of 1,000 are its own", "s", "lower", 5, None
    ),
    "failover_larger_part_pct": Figure("the same: larger part", "%", "lower", 55, None),
    "timeouts_p50_ms": Figure(
        "wait timed out -> its task has failed, p50", "ms", "lower", None, None
    ),
    "timeouts_p99_ms": Figure("the same, p99", "ms", "lower", 1000, None),
    "timeouts_max_ms": Figure("the same, greatest of 100", "ms", "lower", 1000, None),
    "timeouts_together_p50_ms": Figure(
        "1,000 waits time out together -> failed, p50", "ms", "lower", None, None
    ),
    "timeouts_together_p99_ms": Figure("the same, p99", "ms", "lower", 1000, None),
    "timeouts_together_max_ms": Figure("the same, the last", "ms", "lower", 1000, None),
    "idle_mb": Figure("idle: memory of all daemons", "MB", "lower", 100, 909),
    "idle_after_80_mb": Figure("the same after 80 tasks", "MB", "lower", None, 1636),
    "idle_cpu_pct": Figure("idle: CPU of one core", "%", "lower", 0.5, 8),
    "idle_statements_per_s": Figure("idle: SQL statements", "/s", "lower", 1, 80),
    "growth_tasks_wall": Figure("cost per task, run of 10,000 / of 100", "x", "lower", 1.5, None),
    "growth_tasks_cpu": Figure("the same, scheduler's CPU", "x", "lower", 1.5, None),
    "growth_mapped_wall": Figure("cost per instance of 10,000 / of 100", "x", "lower", 1.5, None),
    "growth_mapped_cpu": Figure("the same, scheduler's CPU", "x", "lower", 1.5, None),
    "growth_runs_wall": Figure("cost per task, 1,000 runs / 10", "x", "lower", 1.5, None),
    "growth_runs_cpu": Figure("the same, scheduler's CPU", "x", "lower", 1.5, None),
}
