"""Edges drawn by `>>` and `<<`, in every form."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import BashOperator, DummyOperator, PythonOperator

# Four spellings of one edge.
for number in range(1, 5):
    with DAG(f"bitshift_one_edge_{number}", start_date=datetime(2016, 1, 1)) as dag:
        op1, op2 = DummyOperator(task_id="op1"), DummyOperator(task_id="op2")
    if number == 1:
        op1 >> op2
    elif number == 2:
        op1.set_downstream(op2)
    elif number == 3:
        op2 << op1
    else:
        op2.set_upstream(op1)
    globals()[dag.dag_id] = dag

# From left to right; what comes back is the rightmost.
with DAG("bitshift_chain", start_date=datetime(2016, 1, 1)) as chained:
    op1, op2, op3, op4 = (DummyOperator(task_id=f"op{n}") for n in range(1, 5))
    op1 >> op2 >> op3 << op4

# A DAG in a chain takes the task in.
with_dag = DAG("bitshift_dag", start_date=datetime(2016, 1, 1))
op1, op2 = DummyOperator(task_id="op1"), DummyOperator(task_id="op2")
with_dag >> op1 >> op2

with DAG("bitshift_pipeline", start_date=datetime(2016, 1, 1)) as pipeline:
    (
        DummyOperator(task_id="dummy_1")
        >> BashOperator(task_id="bash_1", bash_command='echo "HELLO!"')
        >> PythonOperator(task_id="python_1", python_callable=lambda: print("GOODBYE!"))
    )

with DAG("bitshift_lists", start_date=datetime(2016, 1, 1)) as lists:
    op1, op2, op3, op4 = (DummyOperator(task_id=f"op{n}") for n in range(1, 5))
    op1 >> [op2, op3] >> op4
