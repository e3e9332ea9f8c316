"""The HTTP server: A2A at ``/``, the agent's card, and health."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import uvicorn
from a2a.server.apps import A2AStarletteApplication
from a2a.server.apps.jsonrpc.jsonrpc_app import CallContextBuilder
from a2a.server.context import ServerCallContext
from a2a.types import AgentCapabilities, AgentCard, AgentSkill
from fastapi import FastAPI
from kagent.core import configure_tracing
from langchain_anthropic import ChatAnthropic
from pydantic import SecretStr
from sse_starlette.sse import AppStatus
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dba_langgraph import __version__
from dba_langgraph.agent import Agent
from dba_langgraph.graph import Nodes, build
from dba_langgraph.settings import Settings
from dba_langgraph.storage import open_storage
from dba_langgraph.tools import Server, Servers
from dba_langgraph.work import Worker

LARGEST = 1024 * 1024
"""Largest request, in bytes."""

NOBODY = "admin@kagent.dev"
"""Who asks, where nobody says so: the user that kagent's own dashboard has."""

MODEL_PATIENCE = 120.0
"""Longest that the model may take to answer, in seconds."""

# Streams are ended by the server below, after what they tell of.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


class AskerBuilder(CallContextBuilder):
    """Reads from a request who asks."""

    def build(self, request: Request) -> ServerCallContext:
        """With the user in its state; None where the header cannot be read as one name."""
        names = request.headers.getlist("x-user-id")
        user: str | None = NOBODY
        if names:
            name = names[0].strip()
            one = len(names) == 1 and name and name.isascii() and name.isprintable()
            user = name if one else None
        return ServerCallContext(state={"user": user})


def card(settings: Settings) -> AgentCard:
    """What the agent says of itself."""
    return AgentCard(
        name=settings.name.replace("-", "_"),
        description=settings.description,
        url=settings.url or f"http://{settings.listen}",
        version=__version__,
        protocol_version="0.3.0",
        preferred_transport="JSONRPC",
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=["text"],
        default_output_modes=["text"],
        skills=[
            AgentSkill(
                id="orders-database",
                name="Orders database",
                description="Queries, emptying tables, schema migrations",
                tags=["database"],
                examples=["what's in the orders table?", "truncate orders", "apply migration v3"],
            )
        ],
    )


class BodyLimit:
    """Refuses what is too large while it comes, also where nobody said how large it will be."""

    def __init__(self, app: ASGIApp) -> None:
        """Before this application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts what is received."""
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > LARGEST:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)


class GracefulServer(uvicorn.Server):
    """Ends what is under way before it ends the streams that are told of it."""

    def __init__(self, config: uvicorn.Config, agent: Agent) -> None:
        """Serves this agent."""
        super().__init__(config)
        self._agent = agent

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops the agent, then the streams, then the server."""
        await self._agent.stop()
        AppStatus.should_exit = True
        await super().shutdown(sockets)


def make(settings: Settings) -> tuple[FastAPI, Agent]:
    """The server and its agent. Nothing is connected to before somebody asks."""
    model = ChatAnthropic(
        model_name=settings.model,
        base_url=settings.model_url,
        # The library wants one, also where the model does not.
        api_key=SecretStr(settings.api_key or "none"),
        max_tokens_to_sample=4096,
        timeout=MODEL_PATIENCE,
        max_retries=2,
        stop=None,
    )
    servers = Servers(
        [
            Server("public", settings.public_tools, reviewed=False),
            Server("privileged", settings.privileged_tools, reviewed=True),
        ],
        settings.tools,
        settings.call_limit,
    )
    storage = open_storage(settings)
    nodes = Nodes(model.bind_tools, servers, settings.system, settings.require_approval)
    run = build(nodes, storage.checkpointer)
    silence = settings.call_limit + 3 * MODEL_PATIENCE
    agent = Agent(Worker(run, storage, settings.longest_run, silence), storage)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await storage.close()

    app = FastAPI(title=settings.name, openapi_url=None, lifespan=lifespan)
    app.add_middleware(BodyLimit)
    configure_tracing(settings.kagent_name, settings.kagent_namespace, app)
    for path in ("/health", "/healthz"):
        app.add_route(path, _health, methods=["GET"])
    served: Any = A2AStarletteApplication(
        agent_card=card(settings),
        http_handler=agent,
        context_builder=AskerBuilder(),
        max_content_length=LARGEST,
    )
    served.add_routes_to_app(app)
    return app, agent


async def _health(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")
