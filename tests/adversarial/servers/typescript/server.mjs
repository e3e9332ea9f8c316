// An MCP server made of the official TypeScript SDK, unmodified, that records the calls it runs.
//
// A POST to a path ending in /express is read with express.json() first, as the SDK's examples do;
// on any other path the SDK's transport reads the body itself. Both speak Streamable HTTP without
// sessions and answer in JSON. Each tools/call that the SDK hands to its handler is recorded with the
// number in the request's `x-case` header, whatever its tool and arguments, with the request target
// and the headers that a server may take for the gate's. GET /executed returns the records since the
// last time, as a JSON array; arguments are JSON text inside it.
//
// Invariant: it never judges a body itself, neither before nor instead of the SDK.
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

let executed = [];

function note({ rawHeaders, headers, originalUrl }, { name, arguments: given }) {
  const number = headers["x-case"];
  if (number === undefined) return;
  const text = JSON.stringify(given ?? {});
  const hitl = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const header = rawHeaders[at].toLowerCase().replaceAll("_", "-");
    if (header.startsWith("x-hitl-")) hitl.push([rawHeaders[at], rawHeaders[at + 1]]);
  }
  const tool = name.toWellFormed();
  executed.push({ case: Number(number), tool, arguments: text, path: originalUrl, hitl });
}

function build(incoming) {
  const server = new Server(
    { name: "differential", version: "1.0.0" },
    { capabilities: CAPABILITIES, jsonSchemaValidator },
  );
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: [] }));
  server.setRequestHandler(CallToolRequestSchema, (request) => {
    note(incoming, request.params);
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
  const server = build(req);
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
app.get("/executed", (_req, res) => {
  res.json(executed);
  executed = [];
});
app.post(/\/express$/, express.json(), serve);
app.post(/(?:)/, serve);
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
