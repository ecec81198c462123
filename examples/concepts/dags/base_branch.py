"""An operator of one's own that branches."""

from datetime import datetime

from roost.dag import DAG
from roost.operators import BaseBranchOperator, DummyOperator


class MyBranchOperator(BaseBranchOperator):
    def choose_branch(self, context):
        """Run an extra branch on the first day of the month."""
        if context["execution_date"].day == 1:
            return ["daily_task_id", "monthly_task_id"]
        return "daily_task_id"


with DAG("base_branch", start_date=datetime(2016, 1, 1)) as dag:
    MyBranchOperator(task_id="branch") >> [
        DummyOperator(task_id="daily_task_id"),
        DummyOperator(task_id="monthly_task_id"),
    ]
