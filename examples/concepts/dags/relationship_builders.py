"""`chain` and `cross_downstream` link many tasks at once."""

from datetime import datetime

from roost.dag import DAG, chain, cross_downstream
from roost.operators import DummyOperator


def ops(*numbers):
    return [DummyOperator(task_id=f"op{number}") for number in numbers]


with DAG("cross_downstream", start_date=datetime(2016, 1, 1)) as crossed:
    cross_downstream(ops(1, 2, 3), ops(4, 5, 6))

with DAG("chain_of_five", start_date=datetime(2016, 1, 1)) as chained:
    op1, op2, op3, op4, op5 = ops(1, 2, 3, 4, 5)
    chain(op1, op2, op3, op4, op5)

# Even without names for the tasks.
nameless = DAG("chain_of_one_list", start_date=datetime(2016, 1, 1))
chain([DummyOperator(task_id=f"op{i}", dag=nameless) for i in range(1, 6)])

with DAG("chain_with_a_list", start_date=datetime(2016, 1, 1)) as listed:
    op1, op2, op3, op4 = ops(1, 2, 3, 4)
    chain(op1, [op2, op3], op4)

# Two neighbouring lists are linked pair by pair.
with DAG("chain_of_lists", start_date=datetime(2016, 1, 1)) as paired:
    op1, op2, op3, op4, op5, op6 = ops(1, 2, 3, 4, 5, 6)
    chain(op1, [op2, op3], [op4, op5], op6)
