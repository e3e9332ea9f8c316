"""Where tasks and checkpoints are kept: in kagent's controller, where its dashboard looks, or in memory.

Must never give one user what is another's.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any, Protocol

import httpx
from a2a.server.context import ServerCallContext
from a2a.types import Task
from kagent.core.a2a import KAgentTaskStore, get_request_user_id
from kagent.langgraph import KAgentCheckpointer
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import TypeAdapter

from dba_langgraph.settings import Settings

PATIENCE = 15.0
"""Longest that the controller may take to answer, in seconds."""


class StorageError(Exception):
    """Tasks cannot be read or kept."""


class Storage(Protocol):
    """Where tasks and checkpoints are kept."""

    checkpointer: BaseCheckpointSaver[Any]

    def thread(self, user: str, context: str) -> str:
        """What the checkpoints of a user's conversation are kept under."""

    async def task(self, user: str, task_id: str) -> Task | None:
        """A task of this user."""

    async def save(self, user: str, task: Task) -> None:
        """Keeps a task."""

    async def of_context(self, user: str, context: str) -> list[Task]:
        """A user's tasks of one conversation."""

    async def close(self) -> None:
        """Ends connections."""


class Memory:
    """In this process, until it ends."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.checkpointer: BaseCheckpointSaver[Any] = InMemorySaver()
        self._tasks: dict[str, tuple[str, Task]] = {}

    def thread(self, user: str, context: str) -> str:
        """Of this user alone, whatever names they choose."""
        return f"{len(user)}:{user}:{context}"

    async def task(self, user: str, task_id: str) -> Task | None:
        """A task of this user."""
        owner, task = self._tasks.get(task_id, ("", None))
        return task.model_copy(deep=True) if task and owner == user else None

    async def save(self, user: str, task: Task) -> None:
        """Keeps a task."""
        if task.id in self._tasks and self._tasks[task.id][0] != user:
            raise StorageError(f"task {task.id} is somebody else's")
        self._tasks[task.id] = (user, task.model_copy(deep=True))

    async def of_context(self, user: str, context: str) -> list[Task]:
        """A user's tasks of one conversation."""
        own = [task for owner, task in self._tasks.values() if owner == user]
        return [task.model_copy(deep=True) for task in own if task.context_id == context]

    async def close(self) -> None:
        """Has nothing to end."""


class _Signed(httpx.Auth):
    """What the controller wants to know of whoever asks: the agent, its token, and its user."""

    def __init__(self, settings: Settings) -> None:
        self._app_name, self._token = settings.app_name, Path(settings.kagent_token)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["X-Agent-Name"] = self._app_name
        if user := get_request_user_id():
            request.headers["X-User-Id"] = user
        # Read each time: Kubernetes renews it.
        if self._token.is_file():
            request.headers["Authorization"] = f"Bearer {self._token.read_text().strip()}"
        yield request


class Controller:
    """In kagent's controller."""

    def __init__(self, settings: Settings) -> None:
        """Reaches it at ``settings.kagent_url``."""
        self._http = httpx.AsyncClient(base_url=settings.kagent_url, auth=_Signed(settings), timeout=PATIENCE)
        self._tasks = KAgentTaskStore(self._http)
        self.checkpointer: BaseCheckpointSaver[Any] = KAgentCheckpointer(self._http, settings.app_name)

    def thread(self, user: str, context: str) -> str:
        """The conversation's id: the controller keeps users apart, and forgets by session."""
        return context

    async def task(self, user: str, task_id: str) -> Task | None:
        """A task of this user."""
        try:
            task: Task | None = await self._tasks.get(task_id, _as(user))
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (httpx.codes.FORBIDDEN, httpx.codes.CONFLICT):
                return None
            raise StorageError(_away(error)) from error
        except httpx.HTTPError as error:
            raise StorageError(_away(error)) from error
        return task

    async def save(self, user: str, task: Task) -> None:
        """Keeps a task."""
        try:
            await self._tasks.save(task, _as(user))
        except httpx.HTTPError as error:
            raise StorageError(_away(error)) from error

    async def of_context(self, user: str, context: str) -> list[Task]:
        """A user's tasks of one conversation; none of a conversation that kagent does not know."""
        url = f"/api/sessions/{httpx.URL(path=context).raw_path.decode()}/tasks"
        try:
            answer = await self._http.get(url, headers={"X-User-Id": user})
            if answer.status_code == httpx.codes.NOT_FOUND:
                return []
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise StorageError(_away(error)) from error
        return TypeAdapter(list[Task]).validate_python(answer.json().get("data") or [])

    async def close(self) -> None:
        """Ends connections."""
        await self._http.aclose()


def _as(user: str) -> ServerCallContext:
    return ServerCallContext(state={"headers": {"x-user-id": user}})


def _away(error: httpx.HTTPError) -> str:
    return f"kagent's controller: {error or type(error).__name__}"


def open_storage(settings: Settings) -> Storage:
    """Where the settings say."""
    return Controller(settings) if settings.kagent_url else Memory()
