"""default_args apply to every task that does not say otherwise."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import DummyOperator

default_args = {"start_date": datetime(2016, 1, 1), "owner": "roost"}

dag = DAG("default_arguments", default_args=default_args)
op = DummyOperator(task_id="dummy", dag=dag)
print(op.owner)  # roost
