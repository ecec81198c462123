"""Write DAGs: the names that DAG files import."""

from roost.dag.asset import Asset, AssetAll, AssetAny, AssetOrTimeSchedule
from roost.dag.connection import Connection
from roost.dag.constants import TriggerRule
from roost.dag.deadline import DeadlineAlert, DeadlineReference
from roost.dag.decorators import dag, task
from roost.dag.definition import DAG
from roost.dag.group import TaskGroup
from roost.dag.group_function import task_group
from roost.dag.node import Label, chain, chain_linear, cross_downstream
from roost.dag.notifier import BaseNotifier
from roost.dag.param import Param
from roost.dag.policy import PriorityWeightStrategy, RetryPolicy
from roost.dag.runtime import get_current_context
from roost.dag.setup_teardown import setup, teardown
from roost.dag.variable import Variable
from roost.dag.watcher import AssetWatcher
from roost.dag.xcom_arg import XComArg
from roost.support.masking import mask_secret

__all__ = [
    "DAG",
    "Asset",
    "AssetAll",
    "AssetAny",
    "AssetOrTimeSchedule",
    "AssetWatcher",
    "BaseNotifier",
    "Connection",
    "DeadlineAlert",
    "DeadlineReference",
    "Label",
    "Param",
    "PriorityWeightStrategy",
    "RetryPolicy",
    "TaskGroup",
    "TriggerRule",
    "Variable",
    "XComArg",
    "chain",
    "chain_linear",
    "cross_downstream",
    "dag",
    "get_current_context",
    "mask_secret",
    "setup",
    "task",
    "task_group",
    "teardown",
]
