"""A pool limits how many of its tasks run at the same time; the heavier path goes first."""

from datetime import datetime, timedelta

from roost.dag import DAG
from roost.operators import BashOperator, DummyOperator

aggregate_db_message_job_cmd = "echo aggregated"

with DAG("pools", start_date=datetime(2016, 1, 1)) as dag:
    wait_for_empty_queue = DummyOperator(task_id="wait_for_empty_queue")

    aggregate_db_message_job = BashOperator(
        task_id="aggregate_db_message_job",
        execution_timeout=timedelta(hours=3),
        pool="ep_data_pipeline_db_msg_agg",
        bash_command=aggregate_db_message_job_cmd,
        dag=dag,
    )
    aggregate_db_message_job.set_upstream(wait_for_empty_queue)

    # Its weight counts for all that comes before it, too.
    urgent = BashOperator(
        task_id="urgent",
        pool="ep_data_pipeline_db_msg_agg",
        bash_command="echo first",
    )
    urgent >> BashOperator(task_id="report", priority_weight=10, bash_command="echo report")
    wait_for_empty_queue >> urgent
