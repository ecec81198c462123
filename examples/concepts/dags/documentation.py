"""
### My great DAG
"""

from datetime import datetime

from roost.dag import DAG
from roost.operators import BashOperator

dag = DAG("documentation", default_args={"start_date": datetime(2016, 1, 1)})
dag.doc_md = __doc__

t = BashOperator(task_id="foo", bash_command="true", dag=dag)
t.doc_md = """\
#Title"
Here's a [url](www.airbnb.com)
"""
