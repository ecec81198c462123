"""BaseOperator: the template of a task, and the task itself once it stands in a DAG (S22)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from roost.dag import knobs, scope
from roost.dag.asset import Asset, assets_of
from roost.dag.callbacks import Callbacks, as_callbacks
from roost.dag.defaults import filling_defaults
from roost.dag.deferral import TaskDeferred
from roost.dag.definition import DAG
from roost.dag.group import TaskGroup
from roost.dag.model import TriggerRule
from roost.dag.names import check_id
from roost.dag.policy import PriorityWeightStrategy, RetryPolicy
from roost.dag.starting import StartTriggerArgs, own_copy
from roost.dag.tasknode import TaskNode
from roost.dag.trigger import BaseTrigger
from roost.dag.xcom_arg import XComArg, find_arguments
from roost.exceptions import DagError
from roost.support.wire import OnTimeout

if TYPE_CHECKING:
    from roost.dag.mapped import OperatorPartial

__all__ = ["BaseOperator"]


class BaseOperator(TaskNode):
    """A unit of work. Subclass it and write :meth:`execute`.

    Arguments of ``execute`` templates are the attributes named by ``template_fields``, a class
    or an instance variable (S67); they are rendered just before :meth:`pre_execute` (S65).

    Args:
        task_id: unique in the DAG, 1 to 250 letters, digits or ``_ . : + -``.
        dag: the DAG it belongs to; default: that of the open ``with`` block (S7, S8).
        task_group: the group it belongs to; default: that of the open ``with`` block.
        default_args: defaults for the arguments of this task, before those of the DAG.
        owner: who answers for it.
        params: parameters of this task, over those of the DAG.
        trigger_rule: when it runs, given its direct parents (S77).
        pool: pool whose slots it uses (S37).
        pool_slots: how many of them, from 1 up.
        queue: which workers take it (S51).
        executor: refused: all tasks go to ``core.executor``; ``queue`` chooses the workers (H25).
        priority_weight: who goes first when slots are short (S42).
        weight_rule: ``downstream``, ``upstream``, ``absolute`` (S43), or a
            :class:`PriorityWeightStrategy` of one's own (H24).
        retries: how often it is tried again after a failure; default
            ``core.default_task_retries``.
        retry_delay: wait before a retry; a timedelta or seconds.
        retry_exponential_backoff: double the wait with every retry; a number from 1 up
            multiplies it by that instead (H13).
        retry_policy: which exceptions are retried, and when; a :class:`RetryPolicy`.
        max_retry_delay: the longest wait; a timedelta or seconds.
        execution_timeout: longest run time of its own code per try, waits excluded (D7).
        depends_on_past: wait until the previous run's instance succeeded (S89).
        wait_for_downstream: wait for that one's direct children, too; implies the former.
        max_active_tis_per_dag: most instances of it queued or running, over all runs of the DAG;
            ``task_concurrency`` is its older name. ``max_active_tis_per_dagrun``: in one run.
        outlets: assets that it makes anew; each success is an event of each (H16).
        inlets: assets that it reads; kept for its own code.
        do_xcom_push: keep the return value of ``execute`` as an XCom (S55).
        multiple_outputs: also keep each item of a returned dict under its own key.
        sla: how long after the end of a scheduled run's data interval it should have succeeded at
            the latest (S100); a timedelta or seconds.
        run_as_user: the user that its process becomes; the worker must run as root.
        on_execute_callback: called in the task's process before ``execute``; a function, a list of
            functions, each with the context as its argument. What a callback raises is logged.
        on_success_callback: called in a process of its own after a success.
        on_failure_callback: called after the last try failed.
        on_retry_callback: called after a try failed that will be followed by another.
        on_skipped_callback: called after the task skipped itself.
        email: whom to tell; an address or several.
        email_on_failure: tell them when the task failed.
        email_on_retry: tell them when a try failed.
        start_date: skipped in runs whose logical date is before this.
        end_date: skipped in runs whose logical date is after this.
        executor_config: refused unless empty, and so is ``resources``: there is no executor that
            would heed them.
        task_display_name: taken and without effect.
        map_index_template: text that names an instance of a mapped task, rendered when it has
            run (H17).
        doc: documentation as plain text; ``doc_md``, ``doc_json``, ``doc_yaml`` and ``doc_rst``
            in their formats (S69).

    Raises:
        DagError: an argument is wrong or the id is taken; the message names it.
    """

    template_fields: Sequence[str] = ()
    template_ext: Sequence[str] = ()
    #: True for an operator whose execute() does nothing: it is completed without a process (H27).
    empty_body: ClassVar[bool] = False
    #: Whether it starts in the trigger that ``start_trigger_args`` tells, without a worker (D12).
    start_from_trigger: bool = False
    start_trigger_args: StartTriggerArgs | None = None
    #: Values that are no templates although they stand in templated fields.
    verbatim: Sequence[Any] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            # Assigned on the class, so that super().__init__ chains meet the wrapper as well.
            cls.__init__ = filling_defaults(cls.__init__, _finish)  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        task_id: str,
        dag: DAG | None = None,
        task_group: TaskGroup | None = None,
        default_args: Mapping[str, Any] | None = None,
        owner: str = "roost",
        params: Mapping[str, Any] | None = None,
        trigger_rule: str = "all_success",
        pool: str = "default_pool",
        pool_slots: int = 1,
        queue: str = "default",
        executor: str | None = None,
        priority_weight: int = 1,
        weight_rule: str | PriorityWeightStrategy = "downstream",
        retries: int | None = None,
        retry_delay: timedelta | float = timedelta(minutes=5),
        retry_exponential_backoff: bool | float = False,
        retry_policy: RetryPolicy | None = None,
        max_retry_delay: timedelta | float | None = None,
        execution_timeout: timedelta | float | None = None,
        depends_on_past: bool = False,
        wait_for_downstream: bool = False,
        max_active_tis_per_dag: int | None = None,
        max_active_tis_per_dagrun: int | None = None,
        task_concurrency: int | None = None,
        do_xcom_push: bool = True,
        outlets: Asset | Iterable[Asset] | None = None,
        inlets: Asset | Iterable[Asset] | None = None,
        multiple_outputs: bool = False,
        sla: timedelta | float | None = None,
        run_as_user: str | None = None,
        on_execute_callback: Callbacks = None,
        on_success_callback: Callbacks = None,
        on_failure_callback: Callbacks = None,
        on_retry_callback: Callbacks = None,
        on_skipped_callback: Callbacks = None,
        email: str | Iterable[str] | None = None,
        email_on_failure: bool = True,
        email_on_retry: bool = True,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        executor_config: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        task_display_name: str | None = None,
        map_index_template: str | None = None,
        doc: str | None = None,
        doc_md: str | None = None,
        doc_json: str | None = None,
        doc_yaml: str | None = None,
        doc_rst: str | None = None,
    ) -> None:
        super().__init__()
        if self.start_trigger_args is not None:
            self.start_trigger_args = own_copy(self.start_trigger_args)
        group = task_group or (scope.current_group() if dag is None else None)
        self.label = check_id(task_id, "task_id")
        self.task_id = check_id(group.child_id(task_id), "task_id") if group else task_id
        self.task_group = group
        self.owner = owner
        self.params: dict[str, Any] = dict(params or {})
        of = f"task {self.task_id!r}"
        self.trigger_rule: TriggerRule = knobs.trigger_rule(of, trigger_rule)
        self.pool = knobs.text(of, "pool", pool)
        self.pool_slots = knobs.whole(of, "pool_slots", pool_slots, least=1)
        if executor is not None:
            raise DagError(
                f"{of}: executor={executor!r} is not available: every task goes to core.executor; "
                "choose its workers by queue=…"
            )
        knobs.unheeded(of, executor_config=executor_config, resources=resources)
        self.queue = knobs.text(of, "queue", queue)
        self.priority_weight = knobs.whole(of, "priority_weight", priority_weight)
        self.weight_rule, self.weight_strategy = knobs.weight_rule(of, weight_rule)
        self.retries = knobs.retries(of, retries)
        self.retry_delay = knobs.duration(of, "retry_delay", retry_delay)
        self.retry_exponential_backoff = knobs.backoff(of, retry_exponential_backoff)
        self.retry_policy = knobs.retry_policy(of, retry_policy)
        self.max_retry_delay = knobs.maybe_duration(of, "max_retry_delay", max_retry_delay)
        self.execution_timeout = knobs.maybe_duration(of, "execution_timeout", execution_timeout)
        self.depends_on_past = depends_on_past or wait_for_downstream
        self.wait_for_downstream = wait_for_downstream
        per_dag, per_run = max_active_tis_per_dag, max_active_tis_per_dagrun
        self.max_active_tis_per_dag = knobs.per_dag_limit(of, per_dag, task_concurrency)
        self.max_active_tis_per_dagrun = knobs.per_run_limit(of, per_run)
        self.outlets = assets_of(outlets, f"{of}: outlets")
        self.inlets = assets_of(inlets, f"{of}: inlets")
        self.do_xcom_push = do_xcom_push
        self.multiple_outputs = multiple_outputs
        self.sla = knobs.maybe_duration(of, "sla", sla)
        self.run_as_user = run_as_user and knobs.text(of, "run_as_user", run_as_user)
        self.on_execute_callback = as_callbacks(of, "on_execute_callback", on_execute_callback)
        self.on_success_callback = as_callbacks(of, "on_success_callback", on_success_callback)
        self.on_failure_callback = as_callbacks(of, "on_failure_callback", on_failure_callback)
        self.on_retry_callback = as_callbacks(of, "on_retry_callback", on_retry_callback)
        self.on_skipped_callback = as_callbacks(of, "on_skipped_callback", on_skipped_callback)
        self.email = knobs.mail_addresses(of, email)
        self.email_on_failure = bool(email_on_failure)
        self.email_on_retry = bool(email_on_retry)
        self.start_date = knobs.maybe_moment(of, "start_date", start_date)
        self.end_date = knobs.maybe_moment(of, "end_date", end_date)
        self.map_index_template = map_index_template
        self.doc = doc
        self.doc_md = doc_md
        self.doc_json = doc_json
        self.doc_yaml = doc_yaml
        self.doc_rst = doc_rst
        owner_dag = dag or (group.dag if group else scope.current_dag())
        if owner_dag is not None:
            self.dag = owner_dag
        if group is not None:
            group.children[self.task_id] = self

    # -- what a subclass writes

    def execute(self, context: dict[str, Any]) -> Any:
        """Do the work. What it returns is kept as an XCom (S55)."""
        raise NotImplementedError(f"{type(self).__name__} has no execute() method")

    def pre_execute(self, context: dict[str, Any]) -> None:
        """Called after the templates are rendered and before :meth:`execute`."""

    def post_execute(self, context: dict[str, Any], result: Any = None) -> None:
        """Called after :meth:`execute` or the method a deferral came back to."""

    def on_kill(self) -> None:
        """Called when the task is stopped: clean up what it started elsewhere."""

    def defer(
        self,
        *,
        trigger: BaseTrigger,
        method_name: str | None,
        kwargs: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
        on_timeout: OnTimeout = "retry",
    ) -> NoReturn:
        """Give the slot back and wait for ``trigger``; come back in ``method_name`` (D1).

        The method is called as ``method(context, event=payload, **kwargs)``.

        Args:
            trigger: what to wait for; its ``serialize()`` is stored.
            method_name: method of this operator that receives the event; None where the trigger
                ends the task (D11).
            kwargs: more arguments for that method; typed JSON.
            timeout: longest wait, a timedelta or seconds (D6).
            on_timeout: what happens then, without a slot: ``retry`` while tries are left,
                ``fail`` for good, or ``skip``.
        """
        raise TaskDeferred(
            trigger=trigger,
            method_name=method_name,
            kwargs=kwargs,
            timeout=timeout,
            on_timeout=on_timeout,
        )

    @property
    def log(self) -> logging.Logger:
        """Logger whose lines appear in the task's log."""
        return logging.getLogger(f"roost.task.{type(self).__name__}")

    # -- its arguments

    def link_arguments(self) -> None:
        """Become downstream of every task whose result is among the templated arguments."""
        if isinstance(self.template_fields, str):
            raise DagError(
                f"task {self.task_id!r}: template_fields must be a tuple of names; "
                f"write ({self.template_fields!r},)"
            )
        for argument in self.find_references():
            if argument.operator is not self:
                argument.set_downstream(self)

    def find_references(self) -> Iterator[XComArg]:
        """The results of other tasks among the templated arguments."""
        for name in self.template_fields:
            yield from find_arguments(getattr(self, name, None))

    @property
    def task_type(self) -> str:
        """The name of its class."""
        return type(self).__name__

    @property
    def output(self) -> XComArg:
        """Its future return value, to be given to another task's argument."""
        return XComArg(self)

    @classmethod
    def partial(cls, **constant: Any) -> OperatorPartial:
        """The arguments that all instances of a mapped task share (H17).

        ``Operator.partial(task_id="t", retries=2).expand(x=[1, 2])`` makes the task.

        Raises:
            DagError: the class has no such argument, or task_id is missing.
        """
        from roost.dag.mapped import OperatorPartial  # it subclasses this class

        return OperatorPartial(cls, constant)

    @classmethod
    def expand(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """An operator is mapped by ``partial(task_id=…)`` and then ``expand``."""
        raise DagError(f"write {cls.__name__}.partial(task_id=…).expand(…)")

    expand_kwargs = expand

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id}>"


def _finish(task: BaseOperator) -> None:
    if not scope.is_detached():
        task.link_arguments()
        scope.note_task(task)


BaseOperator.__init__ = filling_defaults(BaseOperator.__init__, _finish)  # type: ignore[method-assign]
