"""A DAG that is made by a function, to stand inside another one: see main_dag.py."""

from roost.dag import DAG
from roost.operators import DummyOperator


def sub_dag(parent_dag_name, child_dag_name, start_date, schedule_interval):
    dag = DAG(
        f"{parent_dag_name}.{child_dag_name}",
        schedule_interval=schedule_interval,
        start_date=start_date,
    )
    DummyOperator(task_id="dummy_task", dag=dag)
    return dag
