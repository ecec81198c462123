"""A task that is made inside `with DAG(…)` belongs to that DAG."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import DummyOperator

with DAG("context_manager", start_date=datetime(2016, 1, 1)) as dag:
    op = DummyOperator(task_id="op")

print(op.dag is dag)  # True
