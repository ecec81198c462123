"""Variables: settings that can be changed without touching the DAG."""

from datetime import datetime

from roost.dag import DAG, Variable
from roost.operators import BashOperator, PythonOperator


def read():
    foo = Variable.get("foo")
    bar = Variable.get("bar", deserialize_json=True)
    baz = Variable.get("baz", default_var=None)
    return [foo, bar, baz]


def read_what_is_not_there():
    return Variable.get("nowhere")


with DAG("variables", start_date=datetime(2016, 1, 1)) as dag:
    PythonOperator(task_id="read", python_callable=read)
    PythonOperator(task_id="missing", python_callable=read_what_is_not_there)
    BashOperator(task_id="value", bash_command="echo {{ var.value.foo }}")
    BashOperator(task_id="json", bash_command="echo {{ var.json.bar.name }}")
