"""Three ways to put a task into a DAG."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import DummyOperator

dag = DAG("dag_assignment", start_date=datetime(2016, 1, 1))

# says the DAG at once
explicit_op = DummyOperator(task_id="op1", dag=dag)

# is given the DAG later
deferred_op = DummyOperator(task_id="op2")
deferred_op.dag = dag

# takes the DAG of the task that it is linked to
inferred_op = DummyOperator(task_id="op3")
inferred_op.set_upstream(deferred_op)
