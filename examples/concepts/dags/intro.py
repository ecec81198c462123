"""A runs before B, C at any time; A times out, B may be restarted; every night at 10pm."""

from datetime import datetime, timedelta

from roost.dag import DAG
from roost.operators import PythonOperator

with DAG("intro", schedule="0 22 * * *", start_date=datetime(2016, 1, 1), catchup=True):
    a = PythonOperator(task_id="a", python_callable=print, execution_timeout=timedelta(minutes=5))
    b = PythonOperator(task_id="b", python_callable=print, retries=5)
    c = PythonOperator(task_id="c", python_callable=print)
    a >> b
