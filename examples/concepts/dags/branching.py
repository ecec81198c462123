"""A branch chooses by what an upstream task left."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import BashOperator, BranchPythonOperator, DummyOperator

dag = DAG("branching", start_date=datetime(2016, 1, 1))


def branch_func(**kwargs):
    ti = kwargs["ti"]
    xcom_value = int(ti.xcom_pull(task_ids="start_task"))
    if xcom_value >= 5:
        return "continue_task"
    return "stop_task"


start_op = BashOperator(task_id="start_task", bash_command="echo 5", do_xcom_push=True, dag=dag)
branch_op = BranchPythonOperator(
    task_id="branch_task", provide_context=True, python_callable=branch_func, dag=dag
)
continue_op = DummyOperator(task_id="continue_task", dag=dag)
stop_op = DummyOperator(task_id="stop_task", dag=dag)

start_op >> branch_op >> [continue_op, stop_op]

# `join` is a direct child of the branch and comes after branch_a as well: it stays.
with DAG("branching_join", start_date=datetime(2016, 1, 1)) as joined:
    branching = BranchPythonOperator(task_id="branching", python_callable=lambda: "branch_a")
    branch_a, branch_b = DummyOperator(task_id="branch_a"), DummyOperator(task_id="branch_b")
    join = DummyOperator(task_id="join")
    branching >> [branch_a, join, branch_b]
    branch_a >> join
