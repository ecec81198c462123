"""Only DAGs at the top level of a file are found: the second one is local to a function."""

from roost.dag import DAG
from roost.operators import EmptyOperator

dag_1 = DAG("this_dag_will_be_discovered")
EmptyOperator(task_id="task", dag=dag_1)


def my_function():
    dag_2 = DAG("but_this_dag_will_not")
    EmptyOperator(task_id="task", dag=dag_2)


my_function()
