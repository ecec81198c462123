"""Operators: templates of tasks (S28)."""

from roost.dag.operator import BaseOperator
from roost.dag.python import BranchPythonOperator, PythonOperator
from roost.dag.runtime import get_current_context
from roost.operators.bash import BashOperator
from roost.operators.branch import (
    BaseBranchOperator,
    BranchDateTimeOperator,
    BranchDayOfWeekOperator,
    LatestOnlyOperator,
    ShortCircuitOperator,
)
from roost.operators.email import EmailOperator
from roost.operators.empty import DummyOperator, EmptyOperator
from roost.operators.http import HttpOperator, SimpleHttpOperator
from roost.operators.process import SubprocessOperator
from roost.operators.sql import (
    MySqlOperator,
    PostgresOperator,
    SQLExecuteQueryOperator,
    SqliteOperator,
)
from roost.operators.subdag import SubDagOperator
from roost.operators.trigger_dagrun import TriggerDagRunOperator

__all__ = [
    "BaseBranchOperator",
    "BaseOperator",
    "BashOperator",
    "BranchDateTimeOperator",
    "BranchDayOfWeekOperator",
    "BranchPythonOperator",
    "DummyOperator",
    "EmailOperator",
    "EmptyOperator",
    "HttpOperator",
    "LatestOnlyOperator",
    "MySqlOperator",
    "PostgresOperator",
    "PythonOperator",
    "SQLExecuteQueryOperator",
    "ShortCircuitOperator",
    "SimpleHttpOperator",
    "SqliteOperator",
    "SubDagOperator",
    "SubprocessOperator",
    "TriggerDagRunOperator",
    "get_current_context",
]
