"""What one task returns, another one pulls, in code or in a template."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import BashOperator, PythonOperator

value = {"answer": 42}


def push_function():
    return value


def pull_function(**context):
    return context["task_instance"].xcom_pull(task_ids="pushing_task")


def name_a_table(**context):
    context["task_instance"].xcom_push(key="table_name", value="pigeons")


with DAG("xcoms", start_date=datetime(2016, 1, 1)) as dag:
    pushing_task = PythonOperator(task_id="pushing_task", python_callable=push_function)
    pulling_task = PythonOperator(
        task_id="pulling_task", python_callable=pull_function, provide_context=True
    )
    foo = PythonOperator(task_id="foo", python_callable=name_a_table)
    query = BashOperator(
        task_id="query",
        bash_command=(
            'echo \'SELECT * FROM {{ task_instance.xcom_pull(task_ids="foo", key="table_name") }}\''
        ),
    )
    pushing_task >> pulling_task
    foo >> query
