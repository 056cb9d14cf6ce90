"""Where a run's steps are executed: in the run's own process, in a few processes, or on a Dask cluster.

On Dask, steps go through Dagster's step delegation and not through dagster-dask's executor. That one names a
step's task by job and step alone, so that two partitions running at a time share one result; it starts what
follows a failed step; and it knows no retries and no pools.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import create_execution_plan, execute_plan_iterator
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster._grpc.types import ExecuteStepArgs
from dagster_shared.serdes import deserialize_value, serialize_value

from .pool import PRELOADED
from .settings import Settings

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_TIMEOUT_S = 20
POLL_S = 0.5
HEALTH_CHECK_S = 5
ENDS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}

_one_step_at_a_time = threading.Lock()


def build_executor(settings: Settings) -> dg.ExecutorDefinition:
    """Return the executor that the settings ask for.

    Parameters
    ----------
    settings : Settings
        `executor`, `processes` and `dask_address`.
    """
    if settings.executor == "multiprocess":
        return dg.multiprocess_executor.configured(
            {
                "max_concurrent": settings.processes,
                "start_method": {"forkserver": {"preload_modules": PRELOADED}},
            }
        )
    if settings.executor == "dask":
        return dask_executor.configured({"address": settings.dask_address})
    return dg.in_process_executor


@dg.executor(
    name="dask",
    config_schema={"address": dg.Field(dg.StringSource, description="Address of a running scheduler.")},
    requirements=dg.multiple_process_executor_requirements(),
)
def dask_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Return an executor that hands each step to a running Dask cluster."""
    return DaskExecutor(str(context.executor_config["address"]))


class DaskSteps(StepHandler):
    """Hands steps to a Dask scheduler, and looks after them.

    A step whose worker dies is run again by another, as often as the scheduler allows (three times unless
    configured); only then does it fail. That is right because a step writes whole files, with the same
    seed each time.
    """

    def __init__(self) -> None:
        self.client: Client | None = None
        self.futures: dict[str, Future] = {}

    @property
    def name(self) -> str:
        """Name in event logs."""
        return "Dask"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Hand a step to the scheduler, under a name that no other run or attempt has."""
        if self.client is None:
            raise RuntimeError("Steps can be launched only while the executor is connected to Dask.")
        arguments = step_handler_context.execute_step_args
        step = _step(arguments)
        attempt = _attempt(arguments, step)
        self.futures[step] = self.client.submit(
            execute_step, serialize_value(arguments), key=f"{arguments.run_id}.{step}.{attempt}", pure=False
        )
        yield dg.DagsterEvent.step_worker_starting(
            step_handler_context.get_step_context(step), f'Handed step "{step}" to Dask.', metadata={}
        )

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Tell whether Dask has given up on a step."""
        future = self.futures[_step(step_handler_context.execute_step_args)]
        if future.status == "error":
            error = future.exception(timeout=CONNECT_TIMEOUT_S)
            return CheckStepHealthResult.unhealthy(f"{type(error).__name__}: {error}")
        if future.status in ("cancelled", "lost"):
            return CheckStepHealthResult.unhealthy(f"Dask says that its task is {future.status}")
        return CheckStepHealthResult.healthy()

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Cancel a step; one that runs already runs to its end."""
        step = _step(step_handler_context.execute_step_args)
        yield dg.DagsterEvent.engine_event(
            step_handler_context.get_step_context(step), f'Cancelling step "{step}" on Dask.'
        )
        self.futures[step].cancel()


class DaskExecutor(StepDelegatingExecutor):
    """Executes the steps of a run on the Dask cluster at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.steps = DaskSteps()
        super().__init__(
            self.steps,
            retries=RetryMode.ENABLED,
            sleep_seconds=POLL_S,
            check_step_health_interval_seconds=HEALTH_CHECK_S,
        )

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Any:
        """Connect, and execute the plan."""
        with _connected(self.address) as client:
            self.steps.client = client
            yield from super().execute(plan_context, execution_plan)


@contextlib.contextmanager
def _connected(address: str) -> Iterator["Client"]:
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"No Dask scheduler answers at {address}: {error}") from error
    with client:
        yield client


def execute_step(arguments: str) -> None:
    """Execute one step of a run. This is what a Dask worker does; it needs the run's Dagster storage.

    Parameters
    ----------
    arguments : str
        Dagster's `ExecuteStepArgs`, serialised.
    """
    import dask.config

    args = deserialize_value(arguments, ExecuteStepArgs)
    step = _step(args)
    if args.instance_ref is None:
        raise RuntimeError(f"Step {step} came without the address of its Dagster instance.")
    with (
        _one_step_at_a_time,
        dask.config.set(scheduler="synchronous"),  # else xarray takes its locks from the cluster
        dg.DagsterInstance.from_ref(args.instance_ref) as instance,
    ):
        run = instance.get_run_by_id(args.run_id)
        if run is None:
            raise RuntimeError(f"Run {args.run_id} is not in this worker's Dagster storage: share it.")
        if run.is_finished or _has_ended(instance, args):
            return
        repository = ReconstructableRepository(args.job_origin.repository_origin.code_pointer)
        job = repository.get_reconstructable_job(args.job_origin.job_name).get_subset(
            op_selection=run.resolved_op_selection,
            asset_selection=run.asset_selection,
            asset_check_selection=run.asset_check_selection,
        )
        plan = create_execution_plan(
            job,
            run_config=run.run_config,
            step_keys_to_execute=args.step_keys_to_execute,
            known_state=args.known_state,
        )
        for _ in execute_plan_iterator(
            plan, job, run, instance, run_config=run.run_config, retry_mode=args.retry_mode
        ):
            pass  # the run's process reads the events from the instance


def _has_ended(instance: dg.DagsterInstance, args: ExecuteStepArgs) -> bool:
    """Whether this attempt ended, and only its worker's answer was lost."""
    step = _step(args)
    events = instance.get_records_for_run(args.run_id, of_type=ENDS).records
    ended = [one for one in events if one.event_log_entry.step_key == step]
    return len(ended) >= _attempt(args, step)


def _step(arguments: ExecuteStepArgs) -> str:
    (step,) = arguments.step_keys_to_execute or ()
    return str(step)


def _attempt(arguments: ExecuteStepArgs, step: str) -> int:
    """Return the number of the attempt, from 1."""
    state = arguments.known_state
    return 1 + (state.get_retry_state().get_attempt_count(step) if state else 0)
