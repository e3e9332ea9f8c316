"""One task at work: from what was said or decided to the next question, or to the end.

Must never tell what is not kept.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from a2a.server.events.event_queue import Event
from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    TextPart,
)
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Interrupt

from dba_langgraph import approval, graph, history
from dba_langgraph.storage import Storage

log = logging.getLogger(__name__)

KEY = "dba_assistant"
"""Where in a task's metadata stands whose it is."""

INTERRUPTED = (
    "The agent was stopped while it was at this. What it had begun may have happened: look before "
    "you ask again."
)

TERMINAL = (TaskState.completed, TaskState.canceled, TaskState.failed, TaskState.rejected)


def text_part(text: str) -> Part:
    """A part of text."""
    return Part(root=TextPart(text=text))


def now() -> str:
    """The time, as tasks have it."""
    return datetime.now(UTC).isoformat()


def update(task: Task, state: TaskState, said: str | list[Part] | None = None) -> None:
    """Changes a task's state, with something said; what was said before goes into its history."""
    if task.status.message:
        task.history = [*(task.history or []), task.status.message]
    parts = [text_part(said)] if isinstance(said, str) else said
    message = parts and Message(
        message_id=str(uuid.uuid4()),
        role=Role.agent,
        parts=parts,
        task_id=task.id,
        context_id=task.context_id,
    )
    task.status = TaskStatus(state=state, timestamp=now(), message=message or None)


def told(task: Task) -> TaskStatusUpdateEvent:
    """A task's state, as an event."""
    return TaskStatusUpdateEvent(
        task_id=task.id,
        context_id=task.context_id,
        status=task.status.model_copy(deep=True),
        final=task.status.state in (*TERMINAL, TaskState.input_required),
        metadata={key: value for key, value in (task.metadata or {}).items() if key != KEY} or None,
    )


class Work:
    """A task at work."""

    def __init__(
        self, worker: "Worker", user: str, task: Task, thread: str, said: str | dict[str, Any]
    ) -> None:
        """``said`` is what the user said, or the decision that a paused graph takes."""
        self.done = asyncio.Event()
        self._worker, self._user, self._task = worker, user, task
        self._thread, self._said = thread, said
        self._listeners: list[asyncio.Queue[Event | None]] = []
        self._running: asyncio.Task[None] | None = None
        self._end = (TaskState.canceled, "Stopped.")
        self._keeping = asyncio.Lock()

    def start(self, ended: Callable[[], object]) -> None:
        """Begins; ``ended`` is called when what it came to is kept."""
        self._running = asyncio.create_task(self._run(ended), name=f"task {self._task.id}")

    def listen(self) -> asyncio.Queue[Event | None]:
        """What is told from now on; nothing (None) when it has ended."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        if self.done.is_set():
            queue.put_nowait(told(self._task))
            queue.put_nowait(None)
        self._listeners.append(queue)
        return queue

    def cancel(self, state: TaskState, text: str) -> None:
        """Ends it in this state, unless it comes to its end a moment before."""
        self._end = (state, text)
        if self._running:
            self._running.cancel()

    def _tell(self, event: Event | None) -> None:
        for listener in self._listeners:
            listener.put_nowait(event)

    async def _keep(self) -> None:
        """Keeps the task as it is now. A write that was begun ends before the next one begins."""
        kept = self._task.model_copy(deep=True)

        async def write() -> None:
            async with self._keeping:
                await self._worker.storage.save(self._user, kept)

        await asyncio.shield(asyncio.create_task(write()))

    async def _run(self, ended: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(self._worker.run_limit):
                await self._work()
        except asyncio.CancelledError:
            await self._fail(*self._end)
        except TimeoutError:
            text = f"Given up after {self._worker.run_limit:.0f} s of work."
            await self._fail(TaskState.failed, text)
        except Exception as error:
            log.warning("task %s comes to nothing", self._task.id, exc_info=True)
            await self._fail(TaskState.failed, str(error) or type(error).__name__)
        finally:
            ended()
            self.done.set()
            self._tell(None)

    async def _fail(self, state: TaskState, text: str) -> None:
        if self._task.status.state in (*TERMINAL, TaskState.input_required):
            # Its end was being kept when it was stopped: that is what it came to.
            await self._kept_and_told()
            return
        update(self._task, state, text)
        await self._kept_and_told()

    async def _kept_and_told(self) -> None:
        try:
            await self._keep()
        except Exception:
            log.exception("the end of task %s is not kept", self._task.id)
        self._tell(told(self._task))

    async def _status(self, state: TaskState, said: str | list[Part] | None = None) -> None:
        """Changes the state, keeps it, and tells it, in that order."""
        update(self._task, state, said)
        await self._keep()
        self._tell(told(self._task))

    async def _work(self) -> None:
        if isinstance(self._said, str):
            given: Any = graph.begin_turn(self._task.id, self._said)
        else:
            await self._check_question()
            given = Command(resume=self._said)
        if self._task.status.state is not TaskState.working:
            await self._status(TaskState.working)
        last: AnyMessage | None = None
        streamed: AsyncIterator[Any] = self._worker.graph.astream(
            given, self._config(), stream_mode=["updates", "custom"], durability="sync"
        )
        async for mode, piece in streamed:
            if mode == "custom":
                held = f"{piece['held']} is waiting for the platform team since {now()}."
                await self._status(TaskState.working, held)
            elif "__interrupt__" in piece:
                await self._ask(piece["__interrupt__"])
                return
            else:
                for step in piece.values():
                    for message in (step or {}).get("messages", []):
                        last = message
                        await self._told_of(message)
        await self._finish(history.text_of(last) if last else "")

    async def _check_question(self) -> None:
        """Refuses to go on with another question than the one that was decided."""
        state = await self._worker.graph.aget_state(self._config())
        if not state.interrupts or state.values.get("task") != self._task.id:
            raise LookupError(f"task {self._task.id} has lost what it was about; nothing has run")

    async def _told_of(self, message: AnyMessage) -> None:
        if isinstance(message, AIMessage) and message.tool_calls:
            text = history.text_of(message)
            parts = [text_part(text)] if text else []
            parts += [approval.call_part(call) for call in message.tool_calls]
            await self._status(TaskState.working, parts)
        elif isinstance(message, ToolMessage):
            text = history.text_of(message)
            part = approval.response_part(message.tool_call_id, message.name, text)
            await self._status(TaskState.working, [part])

    async def _ask(self, interrupts: tuple[Interrupt, ...]) -> None:
        question = interrupts[0].value
        parts = [text_part(question["again"])] if question.get("again") else []
        parts += [approval.question_part(request) for request in question["action_requests"]]
        await self._status(TaskState.input_required, parts)

    async def _finish(self, text: str) -> None:
        artifact = Artifact(artifact_id=str(uuid.uuid4()), parts=[text_part(text)])
        self._task.artifacts = [*(self._task.artifacts or []), artifact]
        update(self._task, TaskState.completed, text)
        await self._keep()
        self._tell(
            TaskArtifactUpdateEvent(
                task_id=self._task.id,
                context_id=self._task.context_id,
                artifact=artifact,
                last_chunk=True,
            )
        )
        self._tell(told(self._task))

    def _config(self) -> RunnableConfig:
        return {
            "configurable": {"thread_id": self._thread, "user_id": self._user},
            "recursion_limit": graph.MOST_STEPS,
            "run_name": "dba-langgraph",
        }


class Worker:
    """What tasks are worked on with."""

    def __init__(self, run: graph.Graph, storage: Storage, run_limit: float) -> None:
        """A run ends after ``run_limit`` seconds."""
        self.graph, self.storage, self.run_limit = run, storage, run_limit

    def work(self, user: str, task: Task, thread: str, said: str | dict[str, Any]) -> Work:
        """A task at work, not begun yet."""
        return Work(self, user, task, thread, said)

    def is_over_by_now(self, task: Task) -> bool:
        """Whether a run that last said something when this task did must have ended."""
        with suppress(ValueError, TypeError):
            said = datetime.fromisoformat(str(task.status.timestamp).replace("Z", "+00:00"))
            return datetime.now(UTC) - said > timedelta(seconds=self.run_limit)
        return True
