"""Another DAG at the root of a zip file, with a package beside it."""

from datetime import datetime

from package1.functions import greet

from roost.dag import DAG
from roost.operators import PythonOperator

with DAG("my_dag2", start_date=datetime(2016, 1, 1)):
    PythonOperator(task_id="greet", python_callable=greet, op_args=["dag 2"])
