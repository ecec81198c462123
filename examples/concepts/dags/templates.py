"""Templates: macros, nested objects, and options of the Jinja environment."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import BashOperator, PythonOperator

# The execution date as YYYY-MM-DD
date = "{{ ds }}"


class MyDataReader:
    template_fields = ["path"]

    def __init__(self, my_path):
        self.path = my_path


class MyDataTransformer:
    template_fields = ["reader"]

    def __init__(self, my_reader):
        self.reader = my_reader


def read_data(reader):
    return reader.path


def transform_data(transformer):
    return transformer.reader.path


with DAG("templates", start_date=datetime(2016, 1, 1)) as dag:
    BashOperator(
        task_id="test_env", bash_command="echo $EXECUTION_DATE", env={"EXECUTION_DATE": date}
    )
    PythonOperator(
        task_id="read_data",
        python_callable=read_data,
        op_args=[MyDataReader("/tmp/{{ ds }}/my_file")],
    )
    PythonOperator(
        task_id="transform_data",
        python_callable=transform_data,
        op_args=[MyDataTransformer(MyDataReader("/tmp/{{ ds }}/my_file"))],
    )

with DAG(
    dag_id="my-dag",
    start_date=datetime(2016, 1, 1),
    jinja_environment_kwargs={
        "keep_trailing_newline": True,
        # some other options of the Jinja environment here
    },
) as my_dag:
    PythonOperator(task_id="text", python_callable=lambda text: text, op_args=["{{ ds }}\n"])
