// Cookies know no ports: what a reviewer's browser sends to a server on the chat's port, and what it sends to the
// queue, with both open in one profile. Both ends are recorded by servers that stand where the browser connects.

import assert from "node:assert/strict";
import { createServer, request as ask } from "node:http";
import { after, afterEach, before, test } from "node:test";
import { freePort, Lab, token } from "./lab.mjs";

let lab;
let chat;
let front;
let context;
before(async () => {
  const back = await freePort();
  chat = await recorder((request, response) => {
    const headers = { "content-type": "text/html", "set-cookie": "chat-user=carol; Path=/; HttpOnly" };
    response.writeHead(200, headers).end('<title>Chat</title><img src="/icon.png" alt="">');
  });
  // A proxy that passes the Host header on.
  front = await recorder((request, response) => {
    const { method, url, headers } = request;
    const passed = ask({ host: "127.0.0.1", port: back, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    passed.on("error", () => response.destroy());
    response.on("close", () => passed.destroy());
    request.pipe(passed);
  });
  const home = `http://queue.localhost:${front.port}`;
  lab = await Lab.start({ home, ui: [`--listen=127.0.0.1:${back}`, `--url=${home}`] });
});
after(async () => {
  await lab.stop();
  for (const { server } of [chat, front]) {
    server.closeAllConnections();
    server.close();
  }
});
afterEach(() => context.close());

/// A server on a port of its own, and the Host and Cookie headers of every request that it was sent.
async function recorder(answer) {
  const sent = [];
  const server = createServer((request, response) => {
    const { host, cookie = "" } = request.headers;
    sent.push({ host, cookie });
    answer(request, response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, sent, port: server.address().port };
}

/// Signs dana in by a link of this host, in a browser profile of her own; gives the page.
async function signIn(host) {
  context = await lab.browser.newContext();
  chat.sent.length = front.sent.length = 0;
  const page = await context.newPage();
  // The chat's own cookie is there before.
  await page.goto(`http://localhost:${chat.port}/`);
  await page.goto(`http://${host}:${front.port}/login#token=${token("dana")}`);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/queue");
  await page.locator("[data-live][data-on=true]").waitFor();
  return page;
}

/// Opens the chat beside a queue that is open, under these hosts; then the queue again.
async function openChat(page, hosts) {
  const other = await context.newPage();
  for (const host of [...hosts, ...hosts]) {
    await other.goto(`http://${host}:${chat.port}/`, { referer: page.url() });
  }
  await other.close();
  await page.reload();
  await page.locator("[data-live][data-on=true]").waitFor();
}

function nothingCrossed() {
  const holding = (sent, name) => sent.filter(({ cookie }) => cookie.includes(name));
  assert.ok(holding(front.sent, "hitl-session=").length > 0, "the queue is sent its session");
  assert.ok(holding(chat.sent, "chat-user=").length > 0, "the chat is sent its cookie");
  assert.deepEqual(holding(chat.sent, "hitl-"), [], "sent to the chat");
  // But for the one request at localhost, which is led on.
  const led = ({ host }) => host === `localhost:${front.port}`;
  assert.ok(front.sent.filter(led).length <= 1, "one request at localhost");
  assert.deepEqual(holding(front.sent, "chat-").filter((sent) => !led(sent)), [], "sent to the queue");
}

for (const host of ["queue.localhost", "localhost"]) {
  test(`a session that begins by a link of ${host} never reaches a server on the chat's port`, async () => {
    const page = await signIn(host);
    await openChat(page, ["localhost", "127.0.0.1", "chat.localhost"]);
    nothingCrossed();
    assert.equal(new URL(page.url()).hostname, "queue.localhost");
  });
}

test("where the queue's name does not resolve its address of loopback does, apart from the chat's name", async () => {
  const page = await signIn("127.0.0.1");
  await openChat(page, ["localhost"]);
  nothingCrossed();
  assert.equal(new URL(page.url()).hostname, "127.0.0.1");
});

test("under its own name a held call appears by itself and is approved", async () => {
  const page = await signIn("queue.localhost");
  const call = lab.call("carol", { version: "v3" });
  await lab.waiting();
  await page.locator("[data-list] li", { hasText: "carol" }).waitFor();
  await page.getByRole("button", { name: "Approve once" }).click();
  await page.locator(".band", { hasText: "the call passed at once" }).waitFor();
  assert.equal((await call).status, 200);
});
