"""Tasks over A2A: whose they are, who may decide, and what runs.

Owns the order of things: a task is kept before anybody hears of it, and a decision counts once. Must never
let one user see, decide or cancel another's task. kagent's own executor for LangGraph asks neither whose a
task is nor whether it has been decided, which is why there is one here.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, TypeVar
from weakref import WeakValueDictionary

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import (
    DeleteTaskPushNotificationConfigParams,
    GetTaskPushNotificationConfigParams,
    InternalError,
    InvalidParamsError,
    InvalidRequestError,
    ListTaskPushNotificationConfigParams,
    Message,
    MessageSendParams,
    PushNotificationNotSupportedError,
    Task,
    TaskIdParams,
    TaskNotCancelableError,
    TaskNotFoundError,
    TaskPushNotificationConfig,
    TaskQueryParams,
    TaskState,
    TaskStatusUpdateEvent,
    TextPart,
)
from a2a.utils.errors import ServerError

from dba_langgraph import approval, history
from dba_langgraph.storage import NAME, Storage, StorageError
from dba_langgraph.work import INTERRUPTED, KEY, TERMINAL, Work, Worker, close, told, update

log = logging.getLogger(__name__)

TAKING_UP = 2.0
"""Longest that what is being taken up may take when the agent is stopped, in seconds."""

STOPPING = 10.0
"""Longest that everything under way may take to come to its end, in seconds."""

T = TypeVar("T")


class Agent(RequestHandler):
    """The agent, as the A2A server asks it."""

    def __init__(self, worker: Worker, storage: Storage) -> None:
        """Tasks are kept in ``storage`` and worked on by ``worker``."""
        self._worker, self._storage = worker, storage
        self._instance = str(uuid.uuid4())
        # Of one user, one thing is begun, decided or cancelled at a time.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._live: dict[str, Work] = {}
        self._stopping = False
        self._begun: set[asyncio.Task[Any]] = set()

    # What is asked.

    async def on_message_send_stream(
        self, params: MessageSendParams, context: ServerCallContext | None = None
    ) -> AsyncGenerator[Event]:
        """A user says something, and hears what comes of it."""
        user = _user(context)
        task, work = await self._whole(self._send(user, params.message))
        async for event in self._follow(task, work):
            yield event

    async def on_message_send(
        self, params: MessageSendParams, context: ServerCallContext | None = None
    ) -> Message | Task:
        """A user says something, and waits for what comes of it."""
        user = _user(context)
        task, work = await self._whole(self._send(user, params.message))
        if work:
            await work.done.wait()
            task = work.result()
        limit = params.configuration.history_length if params.configuration else None
        return _shortened(task, limit)

    async def on_get_task(
        self, params: TaskQueryParams, context: ServerCallContext | None = None
    ) -> Task | None:
        """A task as it is."""
        task = await self._whole(self._settled(_user(context), params.id))
        return _shortened(task, params.history_length)

    async def on_resubscribe_to_task(
        self, params: TaskIdParams, context: ServerCallContext | None = None
    ) -> AsyncGenerator[Event]:
        """What is told of a task from now on."""
        task = await self._whole(self._settled(_user(context), params.id))
        async for event in self._follow(task, self._live.get(task.id)):
            yield event

    async def on_cancel_task(
        self, params: TaskIdParams, context: ServerCallContext | None = None
    ) -> Task | None:
        """Stops a task, as its user wants."""
        return await self._whole(self._cancel(_user(context), params.id))

    async def stop(self) -> None:
        """Ends everything that is under way, and keeps that it was interrupted."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(STOPPING):
                # What is just being taken up is kept first, or it would be lost; reads may hang.
                if self._begun:
                    await asyncio.wait(self._begun, timeout=TAKING_UP)
                while works := list(self._live.values()):
                    for work in works:
                        work.cancel(TaskState.failed, INTERRUPTED)
                    await asyncio.gather(*(work.done.wait() for work in works))

    # What becomes of it.

    async def _whole(self, asked: Coroutine[Any, Any, T]) -> T:
        """Does all of it, whether or not whoever asked waits for it."""
        doing = asyncio.create_task(_told(asked))
        self._begun.add(doing)
        doing.add_done_callback(self._over)
        return await asyncio.shield(doing)

    def _over(self, done: asyncio.Task[Any]) -> None:
        self._begun.discard(done)
        if not done.cancelled():
            # Known, also where nobody waits for it any more.
            done.exception()

    def _turn_of(self, user: str) -> asyncio.Lock:
        return self._turns.setdefault(user, asyncio.Lock())

    async def _send(self, user: str, message: Message) -> tuple[Task, Work | None]:
        try:
            decision = approval.resume_value(message)
        except approval.UnknownDecisionError as error:
            _refuse(str(error))
        if message.context_id and not NAME.fullmatch(message.context_id):
            _refuse("contextId must be up to 128 letters, digits, dots, hyphens and underscores")
        async with self._turn_of(user):
            if self._stopping:
                raise ServerError(InternalError(message="the agent is being stopped; nothing has happened"))
            log.info("%s %s", user, "decides" if decision else "says something")
            if message.task_id:
                return await self._go_on(user, message, decision)
            if decision is not None:
                _refuse("a decision needs the taskId of what it decides; nothing was decided")
            return await self._begin(user, message)

    async def _go_on(
        self, user: str, message: Message, decision: dict[str, Any] | None
    ) -> tuple[Task, Work | None]:
        """Something said to a task that there is."""
        task = await self._settle(user, await self._read(user, message.task_id or ""))
        if task.status.state is TaskState.input_required and (work := self._live.get(task.id)):
            # It has asked, and is a moment from being done with that.
            await work.done.wait()
            task = await self._read(user, task.id)
        if message.context_id and message.context_id != task.context_id:
            _refuse(f"task {task.id} is not of this contextId; nothing was decided")
        state = task.status.state
        if state is TaskState.input_required and decision is None:
            # Text decides nothing, and the request is not lost: it is asked again.
            return task, None
        if state is not TaskState.input_required:
            waits = "is in terminal state:" if state in TERMINAL else "waits for nothing, it is"
            _refuse(f"Task {task.id} {waits} {state.value}")
        # Behind the question: kagent's page looks for the decision there.
        update(task, TaskState.working)
        heard = {"task_id": task.id, "context_id": task.context_id}
        task.status.message = message.model_copy(update=heard)
        return task, await self._take_up(user, task, decision or {})

    async def _begin(self, user: str, message: Message) -> tuple[Task, Work | None]:
        text = "\n".join(part.root.text for part in message.parts if isinstance(part.root, TextPart))
        if not text.strip():
            _refuse("the message has no text")
        if not history.is_text(text):
            _refuse("the message has letters in it that are none")
        context_id = message.context_id or str(uuid.uuid4())
        tasks = await self._storage.of_context(user, context_id)
        if tasks is None:
            # A client that is not the dashboard has made none.
            await self._storage.begin_context(user, context_id, text)
        for task in tasks or []:
            if not _is_of(task, user):
                continue
            settled = await self._settle(user, task)
            if settled.status.state is TaskState.input_required:
                # What waits in this conversation waits; nothing new begins beside it.
                return settled, None
            if settled.status.state not in TERMINAL:
                _refuse(f"Task {settled.id} of this conversation is not done yet")
        thread = self._storage.thread(user, context_id)
        if any((work.user, work.thread) == (user, thread) for work in self._live.values()):
            _refuse("A task of this conversation is not done yet")
        # The controller may not know this conversation; what waits in it is known all the same.
        waiting = await self._worker.waiting(user, thread)
        asked = await self._storage.task(user, waiting) if waiting else None
        if asked and _is_of(asked, user) and asked.status.state is TaskState.input_required:
            return asked, None
        task_id = str(uuid.uuid4())
        heard = message.model_copy(update={"task_id": task_id, "context_id": context_id})
        task = Task.model_validate(
            {
                "id": task_id,
                "contextId": context_id,
                "status": {"state": TaskState.submitted, "message": heard},
                "history": [],
            }
        )
        return task, await self._take_up(user, task, text)

    async def _take_up(self, user: str, task: Task, said: str | dict[str, Any]) -> Work:
        """Keeps a task as being under way, and lets it work. The user's turn is held."""
        thread = self._storage.thread(user, task.context_id)
        task.metadata = (task.metadata or {}) | {
            KEY: {"user": user, "instance": self._instance},
            "thread_id": thread,
        }
        await self._storage.save(user, task)
        work = self._worker.work(user, task.model_copy(deep=True), thread, said)
        self._live[task.id] = work
        work.start(lambda: self._ended(task.id, work))
        return work

    def _ended(self, task_id: str, work: Work) -> None:
        """Forgets what has ended, unless it has been taken up again already."""
        if self._live.get(task_id) is work:
            del self._live[task_id]

    async def _cancel(self, user: str, task_id: str) -> Task:
        while True:
            async with self._turn_of(user):
                task = await self._settle(user, await self._read(user, task_id))
                work = self._live.get(task_id)
                if work is None:
                    return await self._cancel_idle(user, task)
                work.cancel(TaskState.canceled, "Stopped by its user.")
            # What it came to is kept then: stopped, or done a moment before.
            await work.done.wait()

    async def _cancel_idle(self, user: str, task: Task) -> Task:
        state = task.status.state
        if state in TERMINAL and state is not TaskState.canceled:
            text = f"Task {task.id} is in terminal state: {state.value}"
            raise ServerError(TaskNotCancelableError(message=text))
        if state is not TaskState.canceled:
            update(task, TaskState.canceled)
            await self._storage.save(user, task)
        return task

    async def _follow(self, task: Task, work: Work | None) -> AsyncGenerator[Event]:
        """The state first, then what happens, until nothing follows."""
        queue = work.listen() if work else None
        yield told(task)
        while queue is not None:
            event = await queue.get()
            if event is None:
                return
            yield event
            if isinstance(event, TaskStatusUpdateEvent) and event.final:
                return

    # Whose it is, and whether it is left.

    async def _read(self, user: str, task_id: str) -> Task:
        task = await self._storage.task(user, task_id) if NAME.fullmatch(task_id) else None
        # The controller knows users; the task says once more whose it is.
        if task is None or not _is_of(task, user):
            raise ServerError(TaskNotFoundError(message=f"there is no task {task_id!r}"))
        return task

    async def _settled(self, user: str, task_id: str) -> Task:
        task = await self._read(user, task_id)
        if not self._is_left(task):
            return task
        async with self._turn_of(user):
            return await self._settle(user, await self._read(user, task_id))

    async def _settle(self, user: str, task: Task) -> Task:
        """The task; over, if it was under way in a process that is no more. The turn is held."""
        if self._is_left(task):
            # It may have come to its end between being read and being looked for.
            task = await self._read(user, task.id)
        if self._is_left(task):
            close(task, TaskState.failed, INTERRUPTED)
            await self._storage.save(user, task)
        return task

    def _is_left(self, task: Task) -> bool:
        state = task.status.state
        if state not in (TaskState.submitted, TaskState.working) or task.id in self._live:
            return False
        ours = (task.metadata or {}).get(KEY, {}).get("instance") == self._instance
        # Another process may still be at it, for as long as a run may take.
        return ours or self._worker.is_over_by_now(task)

    # What there is not.

    async def on_set_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext | None = None
    ) -> TaskPushNotificationConfig:
        """Is not offered."""
        _no_push()

    async def on_get_task_push_notification_config(
        self,
        params: TaskIdParams | GetTaskPushNotificationConfigParams,
        context: ServerCallContext | None = None,
    ) -> TaskPushNotificationConfig:
        """Is not offered."""
        _no_push()

    async def on_list_task_push_notification_config(
        self,
        params: ListTaskPushNotificationConfigParams,
        context: ServerCallContext | None = None,
    ) -> list[TaskPushNotificationConfig]:
        """Is not offered."""
        _no_push()

    async def on_delete_task_push_notification_config(
        self,
        params: DeleteTaskPushNotificationConfigParams,
        context: ServerCallContext | None = None,
    ) -> None:
        """Is not offered."""
        _no_push()


def _no_push() -> NoReturn:
    raise ServerError(PushNotificationNotSupportedError())


def _refuse(text: str) -> NoReturn:
    raise ServerError(InvalidParamsError(message=text))


def _user(context: ServerCallContext | None) -> str:
    """Who asks. Who says so in a way that cannot be read is nobody else for it."""
    user = context.state.get("user") if context else None
    if not isinstance(user, str):
        text = "X-User-Id must be one name of visible ASCII letters"
        raise ServerError(InvalidRequestError(message=text))
    return user


def _is_of(task: Task, user: str) -> bool:
    """Whether a task is this user's, and this agent's at all."""
    kept = (task.metadata or {}).get(KEY)
    return isinstance(kept, dict) and kept.get("user") == user


async def _told(asked: Coroutine[Any, Any, T]) -> T:
    """The same, with every error as one that is told to whoever asked."""
    try:
        return await asked
    except ServerError:
        raise
    except StorageError as error:
        log.exception("tasks")
        raise ServerError(InternalError(message=str(error))) from error
    except Exception as error:
        log.exception("a request")
        text = "something went wrong; the agent's log says what"
        raise ServerError(InternalError(message=text)) from error


def _shortened(task: Task, length: int | None) -> Task:
    if length is None or task.history is None:
        return task
    return task.model_copy(update={"history": task.history[-length:] if length > 0 else []})
