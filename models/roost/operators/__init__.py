"""Operators: templates of tasks (S28)."""

from roost.dag.operator import BaseOperator
from roost.dag.python import BranchPythonOperator, PythonOperator
from roost.dag.runtime import get_current_context
from roost.operators.bash import BashOperator
from roost.operators.empty import DummyOperator, EmptyOperator
from roost.operators.subdag import SubDagOperator
from roost.operators.trigger_dagrun import TriggerDagRunOperator

__all__ = [
    "BaseOperator",
    "BashOperator",
    "BranchPythonOperator",
    "DummyOperator",
    "EmptyOperator",
    "PythonOperator",
    "SubDagOperator",
    "TriggerDagRunOperator",
    "get_current_context",
]
