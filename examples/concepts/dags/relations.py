"""task_2 is downstream of task_1; a run for each day from the start date on."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import DummyOperator

with DAG("relations", schedule="@daily", start_date=datetime(2016, 1, 1), catchup=True) as dag:
    task_1 = DummyOperator(task_id="task_1")
    task_2 = DummyOperator(task_id="task_2")
    task_1 >> task_2  # define dependencies
