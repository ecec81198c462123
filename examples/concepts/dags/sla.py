"""Tasks that should have succeeded within an hour of their period, and who is told if not."""

from datetime import datetime, timedelta

from roost.dag import DAG
from roost.operators import PythonOperator


def tell(dag, task_list, blocking_task_list, slas, blocking_tis):
    print(f"{dag.dag_id} missed: {task_list}; blocked by {blocking_task_list}")


with DAG(
    "sla",
    schedule="@hourly",
    start_date=datetime(2016, 1, 1),
    sla_miss_callback=tell,
    default_args={"email": ["team@example.com"]},
) as dag:
    PythonOperator(task_id="slow", python_callable=print) >> PythonOperator(
        task_id="due", python_callable=print, sla=timedelta(hours=1)
    )
