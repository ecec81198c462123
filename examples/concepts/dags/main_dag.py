"""A DAG with another one inside."""

from datetime import datetime, timedelta

from subdag import sub_dag

from roost.dag import DAG
from roost.operators import SubDagOperator

PARENT_DAG_NAME = "parent_dag"
CHILD_DAG_NAME = "child_dag"

main_dag = DAG(
    dag_id=PARENT_DAG_NAME,
    schedule_interval=timedelta(hours=1),
    start_date=datetime(2016, 1, 1),
)

child = SubDagOperator(
    subdag=sub_dag(
        PARENT_DAG_NAME, CHILD_DAG_NAME, main_dag.start_date, main_dag.schedule_interval
    ),
    task_id=CHILD_DAG_NAME,
    dag=main_dag,
)
