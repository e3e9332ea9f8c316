// An MCP server made of the official TypeScript SDK as it is; notes what it executes.
//
// POST /mcp lets the SDK's transport read the body itself; POST /express reads it with
// express.json() first, as the SDK's examples do. Both speak Streamable HTTP without sessions and
// answer in JSON. Every tools/call that the SDK hands to its handler counts as executed, whatever
// the tool and its arguments: both are noted with the number in the request's `x-case` header. GET
// /executed gives all that is noted, as a JSON array; arguments are JSON inside of it, as text.
//
// It must never judge a body itself, neither before nor instead of the SDK: it is there to show
// what a server that is not ours takes for a tool call.
// Usage: node server.mjs; prints `listening address=127.0.0.1:PORT` once it listens.

import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CallToolRequestSchema, ListToolsRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/ajv";
import express from "express";

// Longer than any pause of a test, so that no request meets a connection that is just being closed.
const KEEP_ALIVE_MS = 600_000;

// The handlers below do not wait for anything: an answer that is not there this long after the
// whole body was read never comes. A batch that cancels its own call is such a case.
const ANSWER_MS = 100;

// Tasks are declared so that a call which asks to run as one reaches the handler too.
const CAPABILITIES = { tools: {}, tasks: { requests: { tools: { call: {} } } } };

// The one a server would make for itself; shared because making it costs more than a request.
const jsonSchemaValidator = new AjvJsonSchemaValidator();

const executed = [];

function note(requestInfo, { name, arguments: given }) {
  const number = requestInfo?.headers["x-case"];
  if (number === undefined) return;
  const text = JSON.stringify(given ?? {});
  executed.push({ case: Number(number), tool: name.toWellFormed(), arguments: text });
}

function build() {
  const server = new Server(
    { name: "differential", version: "1.0.0" },
    { capabilities: CAPABILITIES, jsonSchemaValidator },
  );
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: [] }));
  server.setRequestHandler(CallToolRequestSchema, (request, extra) => {
    note(extra.requestInfo, request.params);
    return { content: [{ type: "text", text: "executed" }] };
  });
  return server;
}

/** Ends an exchange that the SDK leaves open; what it still executes is noted all the same. */
function giveUpLate(req, res) {
  const arm = () => {
    const timer = setTimeout(() => {
      if (!res.headersSent) res.status(500).end();
    }, ANSWER_MS);
    res.once("close", () => clearTimeout(timer));
  };
  if (req.readableEnded) arm();
  else req.once("end", arm);
}

async function serve(req, res) {
  giveUpLate(req, res);
  const server = build();
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: undefined,
    enableJsonResponse: true,
  });
  res.once("close", () => {
    transport.close();
    server.close();
  });
  await server.connect(transport);
  await transport.handleRequest(req, res, req.body);
}

const app = express();
app.post("/mcp", serve);
app.post("/express", express.json(), serve);
app.get("/executed", (_req, res) => {
  res.json(executed);
});
// Express takes a function for an error handler only if it has four parameters.
app.use((error, _req, res, _next) => {
  if (!res.headersSent) res.status(error.status ?? 500);
  res.end();
});

// A hostile body may break a promise that nobody waits for; the next request must not suffer.
process.on("unhandledRejection", () => {});

const listener = app.listen(0, "127.0.0.1", () => {
  console.log(`listening address=127.0.0.1:${listener.address().port}`);
});
listener.keepAliveTimeout = KEEP_ALIVE_MS;
listener.requestTimeout = 0;
