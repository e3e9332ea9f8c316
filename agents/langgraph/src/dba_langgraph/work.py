"""One task at work: from what was said or decided to the next question, or to the end.

Must never tell what is not kept, and never end without a word.
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

from dba_langgraph import approval, graph, history, words
from dba_langgraph.storage import Storage, StorageError

log = logging.getLogger(__name__)

KEY = "dba_assistant"
"""Where in a task's metadata stands whose it is."""

INTERRUPTED = (
    "The agent was stopped while it was at this. What it had begun may have happened: look before you "
    "ask again."
)

KEEPING = 4.0
"""Longest that it is waited for the end of a task to be kept, in seconds; it is told then anyhow."""


class LostError(Exception):
    """What a task was about is not there any more."""


TOLD = (LostError, StorageError, graph.NoToolsError, graph.TooManyRoundsError, history.ModelError)
"""What is told in its own words."""

TERMINAL = (TaskState.completed, TaskState.canceled, TaskState.failed, TaskState.rejected)
AT_REST = (*TERMINAL, TaskState.input_required)


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


def close(task: Task, state: TaskState, text: str) -> None:
    """Ends a task with a last word.

    That goes into the history as well: kagent's page shows nothing else of a task after a reload.
    """
    update(task, state, text)
    if task.status.message:
        task.history = [*(task.history or []), task.status.message]


def told(task: Task) -> TaskStatusUpdateEvent:
    """A task's state, as an event."""
    return TaskStatusUpdateEvent(
        task_id=task.id,
        context_id=task.context_id,
        status=task.status.model_copy(deep=True),
        final=task.status.state in AT_REST,
        metadata={key: value for key, value in (task.metadata or {}).items() if key != KEY} or None,
    )


class Work:
    """A task at work."""

    def __init__(
        self, worker: "Worker", user: str, task: Task, thread: str, said: str | dict[str, Any]
    ) -> None:
        """``said`` is what the user said, or the decision that a paused graph takes."""
        self.done = asyncio.Event()
        self.user, self.thread = user, thread
        self._worker, self._task, self._said = worker, task, said
        self._listeners: list[asyncio.Queue[Event | None]] = []
        self._driving: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None
        self._stop: tuple[TaskState, str] | None = None
        self._answer: list[Event] = []
        self._keeping = asyncio.Lock()
        self._pending: asyncio.Task[None] | None = None
        self._kept = task.status.state

    def start(self, ended: Callable[[], object]) -> None:
        """Begins; ``ended`` is called when what it came to is kept."""
        self._driving = asyncio.create_task(self._drive(ended), name=f"task {self._task.id}")

    def listen(self) -> asyncio.Queue[Event | None]:
        """What is told from now on; nothing (None) when it has ended."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        if self.done.is_set():
            queue.put_nowait(told(self._task))
            queue.put_nowait(None)
        self._listeners.append(queue)
        return queue

    def result(self) -> Task:
        """The task as it was told last."""
        return self._task.model_copy(deep=True)

    def cancel(self, state: TaskState, text: str) -> None:
        """Ends it in this state, unless it comes to its end a moment before. The first one counts."""
        if self._stop is None:
            self._stop = (state, text)
            if self._working:
                self._working.cancel()

    def _tell(self, event: Event | None) -> None:
        for listener in self._listeners:
            listener.put_nowait(event)

    async def _keep(self) -> None:
        """Keeps the task as it is now. A write that was begun ends before the next one begins."""
        kept = self._task.model_copy(deep=True)

        async def write() -> None:
            async with self._keeping:
                await self._worker.storage.save(self.user, kept)
                self._kept = kept.status.state

        self._pending = asyncio.create_task(write())
        await asyncio.shield(self._pending)

    async def _drive(self, ended: Callable[[], object]) -> None:
        """Works, and sees to it that there is an end. Nobody cancels this: only the work itself."""
        try:
            end = self._stop or await self._worked()
            # Whatever is being written is written before it is asked what was.
            if self._pending:
                await asyncio.wait({self._pending}, timeout=KEEPING)
            if self._kept in AT_REST:
                # It had come to its end when it was stopped.
                for event in self._answer:
                    self._tell(event)
                self._tell(told(self._task))
            else:
                close(self._task, *(end or (TaskState.failed, "It ended without a result.")))
                await self._end()
        except Exception:
            log.exception("task %s", self._task.id)
        finally:
            ended()
            self.done.set()
            self._tell(None)

    async def _worked(self) -> tuple[TaskState, str] | None:
        """How it ended, if it did not come to its own end."""
        self._working = asyncio.create_task(self._work())
        await asyncio.wait({self._working}, timeout=self._worker.run_limit)
        if not self._working.done():
            self._working.cancel()
            await asyncio.wait({self._working})
            return TaskState.failed, f"Given up after {self._worker.run_limit:.0f} s of work."
        if self._working.cancelled():
            return self._stop or (TaskState.failed, INTERRUPTED)
        if error := self._working.exception():
            log.warning("task %s comes to nothing", self._task.id, exc_info=error)
            if isinstance(error, TOLD):
                return TaskState.failed, str(error)
            # Other people's words may hold addresses, or more.
            return TaskState.failed, "Something went wrong; the agent's log says what."
        return None

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(KEEPING):
                await self._keep()
        except Exception:
            # Whoever listens is told nevertheless; it is settled when somebody looks for it again.
            log.exception("the end of task %s is not kept", self._task.id)
        self._tell(told(self._task))

    async def _status(self, state: TaskState, said: str | list[Part] | None = None) -> None:
        """Changes the state, keeps it, and tells it, in that order; an end is told at the very end."""
        update(self._task, state, said)
        await self._keep()
        if state not in AT_REST:
            self._tell(told(self._task))

    async def _work(self) -> None:
        if isinstance(self._said, str):
            given: Any = graph.begin_turn(self._task.id, self._said)
        else:
            if await self._worker.waiting(self.user, self.thread) != self._task.id:
                raise LostError(f"task {self._task.id} has lost what it was about; nothing has run")
            given = Command(resume=self._said)
        await self._status(TaskState.working)
        last: AnyMessage | None = None
        question: tuple[Interrupt, ...] = ()
        streamed: AsyncIterator[Any] = self._worker.graph.astream(
            given,
            self._worker.config(self.user, self.thread),
            stream_mode=["updates", "custom"],
            durability="sync",
        )
        async for mode, piece in streamed:
            if mode == "custom":
                await self._status(TaskState.working, words.aside(piece["said"]))
            elif "__interrupt__" in piece:
                # Asked when the stream has ended: then the graph is kept with it.
                question = piece["__interrupt__"]
            else:
                for step in piece.values():
                    for message in (step or {}).get("messages", []):
                        last = message
                        await self._told_of(message)
        if question:
            await self._ask(question)
        else:
            await self._finish(history.text_of(last) if last else "")

    async def _told_of(self, message: AnyMessage) -> None:
        if isinstance(message, AIMessage) and message.tool_calls:
            text = history.text_of(message)
            parts = [text_part(words.aside(text))] if text else []
            parts += [approval.call_part(call) for call in message.tool_calls]
            await self._status(TaskState.working, parts)
        elif isinstance(message, ToolMessage):
            text = history.text_of(message)
            part = approval.response_part(message.tool_call_id, message.name, text)
            await self._status(TaskState.working, [part])

    async def _ask(self, interrupts: tuple[Interrupt, ...]) -> None:
        question = interrupts[0].value
        if again := question.get("again"):
            # Of its own: kagent's page shows no text beside a question.
            await self._status(TaskState.working, words.aside(again))
        parts = [approval.question_part(request) for request in question["action_requests"]]
        await self._status(TaskState.input_required, parts)

    async def _finish(self, text: str) -> None:
        """Keeps the answer as kagent's own runtime does.

        As a message, which is all that its page shows after a reload; as an artifact, which is what it shows
        live; and not once more with the end. All of it is kept before any of it is told.
        """
        artifact = Artifact(artifact_id=str(uuid.uuid4()), parts=[text_part(text)])
        self._task.artifacts = [*(self._task.artifacts or []), artifact]
        update(self._task, TaskState.working, text)
        made = TaskArtifactUpdateEvent(
            task_id=self._task.id, context_id=self._task.context_id, artifact=artifact, last_chunk=True
        )
        self._answer = [told(self._task), made]
        await self._status(TaskState.completed)


class Worker:
    """What tasks are worked on with."""

    def __init__(self, run: graph.Graph, storage: Storage, run_limit: float, silence: float) -> None:
        """A run ends after ``run_limit`` seconds, and says something every ``silence`` seconds at least."""
        self.graph, self.storage, self.run_limit, self._silence = run, storage, run_limit, silence

    def work(self, user: str, task: Task, thread: str, said: str | dict[str, Any]) -> Work:
        """A task at work, not begun yet."""
        return Work(self, user, task, thread, said)

    async def waiting(self, user: str, thread: str) -> str | None:
        """The task whose question a conversation waits with, if it waits."""
        state = await self.graph.aget_state(self.config(user, thread))
        return str(state.values.get("task")) if state.interrupts else None

    def is_over_by_now(self, task: Task) -> bool:
        """Whether a run that last said something when this task did must have ended."""
        with suppress(ValueError, TypeError):
            said = datetime.fromisoformat(str(task.status.timestamp).replace("Z", "+00:00"))
            return datetime.now(UTC) - said > timedelta(seconds=self._silence)
        return True

    def config(self, user: str, thread: str) -> RunnableConfig:
        """How the graph of a user's conversation is run."""
        return {
            "configurable": {"thread_id": thread, "user_id": user},
            "recursion_limit": graph.MOST_STEPS,
            "run_name": "dba-langgraph",
        }
