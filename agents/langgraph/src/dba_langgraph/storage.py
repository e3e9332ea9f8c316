"""Where tasks and checkpoints are kept: in kagent's controller, where its dashboard looks, or in memory.

Must never give one user what is another's.
"""

import logging
import re
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
from a2a.server.context import ServerCallContext
from a2a.types import Task
from kagent.core.a2a import KAgentTaskStore, get_request_user_id
from kagent.langgraph import KAgentCheckpointer
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import TypeAdapter

from dba_langgraph import words
from dba_langgraph.settings import Settings

PATIENCE = 15.0
"""Longest that the controller may take to answer, in seconds."""

TITLE = 20
"""Longest name of a conversation, in characters."""

log = logging.getLogger(__name__)

NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,128}")
"""What tasks and conversations may be called: their names become part of addresses."""

T = TypeVar("T")


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

    async def of_context(self, user: str, context: str) -> list[Task] | None:
        """A user's tasks of one conversation; none where the conversation is not known."""

    async def begin_context(self, user: str, context: str, said: str) -> None:
        """Makes a conversation known that was not, under a name made from the first words said in it."""

    async def close(self) -> None:
        """Ends connections."""


class _Latest(InMemorySaver):
    """Checkpoints in memory, of each conversation the latest: nobody goes back to the others."""

    async def aput(self, config: Any, *args: Any, **more: Any) -> Any:
        put = await super().aput(config, *args, **more)
        thread, namespace = (put["configurable"][key] for key in ("thread_id", "checkpoint_ns"))
        latest = put["configurable"]["checkpoint_id"]
        checkpoints = self.storage[thread][namespace]
        for old in [checkpoint for checkpoint in checkpoints if checkpoint != latest]:
            del checkpoints[old]
            self.writes.pop((thread, namespace, old), None)
        versions = self.serde.loads_typed(checkpoints[latest][0])["channel_versions"]
        for key in [key for key in self.blobs if key[:2] == (thread, namespace)]:
            if versions.get(key[2]) != key[3]:
                del self.blobs[key]
        return put


class Memory:
    """In this process, until it ends."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.checkpointer: BaseCheckpointSaver[Any] = _Latest()
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

    async def begin_context(self, user: str, context: str, said: str) -> None:
        """Knows every conversation."""

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

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Reaches it at ``settings.kagent_url``; over another transport where one is given."""
        self._http = httpx.AsyncClient(
            base_url=settings.kagent_url,
            auth=_Signed(settings),
            timeout=PATIENCE,
            trust_env=False,
            transport=transport,
        )
        self._app_name = settings.app_name
        self._tasks = KAgentTaskStore(self._http)
        self.checkpointer: BaseCheckpointSaver[Any] = KAgentCheckpointer(self._http, settings.app_name)

    def thread(self, user: str, context: str) -> str:
        """The conversation's id: the controller keeps users apart, and forgets by session."""
        return context

    async def task(self, user: str, task_id: str) -> Task | None:
        """A task of this user."""
        task: Task | None = await _answered(self._tasks.get(_named(task_id), _as(user)))
        if task and task.id != task_id:
            raise StorageError("kagent's controller: another task than was asked for")
        return task

    async def save(self, user: str, task: Task) -> None:
        """Keeps a task."""
        await _answered(self._tasks.save(task, _as(user)))

    async def of_context(self, user: str, context: str) -> list[Task] | None:
        """A user's tasks of one conversation; none where kagent does not know it."""
        return await _answered(self._of_context(user, _named(context)))

    async def begin_context(self, user: str, context: str, said: str) -> None:
        """Makes a conversation known, so that its tasks can be asked for and the dashboard shows it.

        Only for one that is not known: kagent would take a conversation that is for renamed.
        """
        session = {"id": context, "agent_ref": self._app_name, "name": title(said)}
        await _answered(self._begin_session(user, session))

    async def _begin_session(self, user: str, session: dict[str, str]) -> None:
        answer = await self._http.post("/api/sessions", json=session, headers={"X-User-Id": user})
        if answer.is_error:
            # Tasks are kept without one as well; they are only not found by conversation.
            log.warning("kagent does not take the conversation: %s", answer.status_code)

    async def _of_context(self, user: str, context: str) -> list[Task]:
        answer = await self._http.get(f"/api/sessions/{context}/tasks", headers={"X-User-Id": user})
        answer.raise_for_status()
        return TypeAdapter(list[Task]).validate_python(answer.json().get("data") or [])

    async def close(self) -> None:
        """Ends connections."""
        await self._http.aclose()


def title(said: str) -> str:
    """A conversation's name, as kagent's page makes it from what was said first."""
    said = said.strip()
    return said[:TITLE] + ("..." if len(said) > TITLE else "")


def _as(user: str) -> ServerCallContext:
    return ServerCallContext(state={"headers": {"x-user-id": user}})


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise StorageError("a name of a task or a conversation that cannot be looked for")
    return name


async def _answered(asked: Awaitable[T]) -> T | None:
    """What the controller answers; none where there is nothing, or nothing of this user's."""
    nobodys = (httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN, httpx.codes.CONFLICT)
    try:
        return await asked
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in nobodys and error.request.method == "GET":
            return None
        raise StorageError(f"kagent's controller answers {status}") from error
    except httpx.HTTPError as error:
        raise StorageError(f"kagent's controller: {words.plain(error)}") from error
    except (ValueError, AttributeError, httpx.InvalidURL) as error:
        # Not word for word: it may be somebody else's.
        raise StorageError("kagent's controller: an answer that cannot be read") from error


def open_storage(settings: Settings) -> Storage:
    """Where the settings say."""
    return Controller(settings) if settings.kagent_url else Memory()
