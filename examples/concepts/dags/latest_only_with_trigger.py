"""What only the latest run of a schedule needs to do."""

import datetime as dt

from roost.dag import DAG
from roost.operators import DummyOperator, LatestOnlyOperator

dag = DAG(
    dag_id="latest_only_with_trigger",
    schedule_interval=dt.timedelta(hours=1),
    start_date=dt.datetime(2019, 2, 28),
    catchup=True,
)

latest_only = LatestOnlyOperator(task_id="latest_only", dag=dag)
task1 = DummyOperator(task_id="task1", dag=dag)
task1.set_upstream(latest_only)
task2 = DummyOperator(task_id="task2", dag=dag)
task3 = DummyOperator(task_id="task3", dag=dag)
task3.set_upstream([task1, task2])
task4 = DummyOperator(task_id="task4", dag=dag, trigger_rule="all_done")
task4.set_upstream([task1, task2])
