// Every page, as it looks and as it behaves: nothing for axe to find, in light and dark, on a phone
// and on a desk; what an open page costs; and that nobody else's page gets hold of it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { faultless, Lab, picture, signIn, token, until } from "./lab.mjs";

let lab;
let ids;
before(async () => {
  lab = await Lab.start();
  // One of each: approved, rejected, and three that wait, one of them hostile and one one's own.
  const decide = async (user, version, approved) => {
    const call = lab.call(user, { version });
    const { id } = await lab.waiting();
    await fetch(`${lab.admin}/decide/${id}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token("lee")}`, "content-type": "application/json" },
      body: JSON.stringify({ approved, reason: "=cmd() as planned" }),
    });
    await call;
    return id;
  };
  ids = [await decide("alice@example.com", "v3", true), await decide("omar@example.com", "v4", false)];
  lab.call("alice@example.com", { version: "v4" });
  await lab.waiting(1);
  lab.call("dana", { version: "v1" });
  await lab.waiting(2);
  const odd = { version: "v\u202e3", note: "long ".repeat(400), nested: { list: [1, { deep: true }] } };
  lab.call("eve@example.com", odd, "run_migr\u0430tion");
  await lab.waiting(3);
  for (const request of (await lab.ask("/pending")).pending) ids.push(request.id);
});
after(() => lab.stop());

const LOOKS = ["light", "dark"].flatMap((colorScheme) =>
  [320, 1440].map((width) => ({ colorScheme, viewport: { width, height: width === 320 ? 640 : 900 } })),
);

for (const look of LOOKS) {
  const name = `${look.colorScheme}-${look.viewport.width}`;
  test(`axe finds nothing on any page, ${name}`, async () => {
    const { context, page, complaints } = await lab.visitor(look);
    const check = async (what) => {
      await faultless(page, what);
      await page.screenshot({ path: `${process.env.OUT}/${name}-${what}.png`, fullPage: true });
    };
    await page.goto("/login");
    await check("login");
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    await check("login-wrong");
    await signIn(page, "dana");
    await page.locator("[data-live][data-on=true]").waitFor();
    await check("queue");
    await page.getByText("Options", { exact: true }).click();
    await check("options");
    await page.goto("/queue?q=nothing-like-this");
    await check("queue-empty");
    const [approved, rejected, , own, odd] = ids;
    for (const [what, id] of Object.entries({ approved, rejected, own, odd })) {
      await page.goto(`/requests/${id}`);
      await page.locator("[data-live][data-on=true]").waitFor();
      await check(what);
    }
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    await check("keys");
    await page.goto("/history");
    await check("history");
    await page.goto("/insights?span=7d");
    await check("insights");
    await page.goto("/nothing");
    await check("not-found");
    // Without a gate: the page that is open, and one that cannot be made.
    await page.goto(`/requests/${odd}`);
    await page.locator("[data-live][data-on=true]").waitFor();
    await context.route("**/live", (route) => route.abort());
    await context.route("**/queue/list*", (route) => route.fulfill({ status: 503 }));
    await page.reload();
    await page.locator("[data-away]").waitFor();
    await check("away");
    await context.close();
    assert.deepEqual(complaints, []);
  });
}

test("history is filtered, exported, and stands on a chain that was verified", async () => {
  const { context, page } = await lab.signedIn("dana");
  await page.goto("/history");
  const head = await lab.ask("/audit/head");
  await page.getByText(`Verified up to #${head.seq}`).waitFor();
  await page.getByText(head.hash).waitFor();
  const today = new Date().toISOString().slice(0, 10);
  await page.getByLabel("State").selectOption("denied");
  await page.getByLabel("Tool").fill("run_migration");
  await page.getByLabel("Reviewer").fill("lee");
  await page.getByLabel("Text").fill("AS PLANNED");
  await page.getByLabel("From (UTC)").fill(today);
  await page.getByLabel("To (UTC)").fill(today);
  await page.getByRole("button", { name: "Filter" }).click();
  await page.getByRole("cell", { name: "rejected by lee" }).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 1);
  const saved = async (name) => {
    const download = page.waitForEvent("download");
    await page.getByRole("link", { name, exact: true }).click();
    return readFileSync(await (await download).path(), "utf8");
  };
  const table = (await saved("CSV")).trim().split("\n");
  assert.equal(table.length, 2);
  assert.ok(table[0].startsWith('"id","state","receivedAt"'));
  assert.ok(table[1].startsWith(`"${ids[1]}","denied"`) && table[1].includes(',"\'=cmd() as planned"'));
  const lines = (await saved("NDJSON")).trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(lines.map(({ id, state }) => [id, state]), [[ids[1], "denied"]]);
  // A permanent link, with everything that happened.
  await page.locator("tbody a").click();
  await page.waitForURL(`**/requests/${ids[1]}`);
  await page.locator(".trail", { hasText: "denied by lee" }).waitFor();
  await page.goto("/history?to=1999-01-01");
  await page.getByText("No request is like that").waitFor();
  await page.goto("/history?from=yesterday");
  await page.getByText("is no day like").waitFor();
  await context.close();
});

test("insights count what was settled, by tool", async () => {
  const { context, page } = await lab.signedIn("dana");
  for (const span of ["24 hours", "7 days", "30 days"]) {
    await page.goto("/insights");
    await page.getByRole("link", { name: span }).click();
    const numbers = await page.locator(".numbers li").allTextContents();
    assert.deepEqual(numbers.slice(0, 4), ["3 waiting now", "1 approved", "1 rejected", "0 expired"]);
    const row = page.getByRole("row", { name: /run_migration/ });
    assert.deepEqual((await row.locator("td").allTextContents()).slice(0, 3), ["2", "1", "1"]);
    assert.equal(await page.locator(".bars .approved").count(), 1);
  }
  await context.close();
});

test("all pages of a browser share one stream, and an open page asks for nothing by itself", async () => {
  const { context, page } = await lab.visitor();
  const asked = [];
  context.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await signIn(page, "dana");
  await page.locator("[data-live][data-on=true]").waitFor();
  const pages = [page];
  for (let number = 0; number < 7; number += 1) pages.push(await context.newPage());
  for (const one of pages.slice(1)) {
    await one.goto("/queue");
    await one.locator("[data-live][data-on=true]").waitFor();
  }
  assert.equal(asked.filter((path) => path === "/live").length, 1);
  const before = asked.length;
  // Quiet for as long as the original's page took between two polls.
  await new Promise((resolve) => setTimeout(resolve, 8000));
  assert.deepEqual(asked.slice(before), []);
  // The one that listens closes: another takes over.
  await page.close();
  lab.call("u-last", { version: "v1", unlike: "others" });
  const card = pages[7].locator("[data-list] li", { hasText: "u-last" });
  await card.waitFor();
  // Signed out in one, all are.
  await pages[1].getByRole("button", { name: "Sign out" }).click();
  // (A page may go there twice: by what it hears from the others, and by what the queue says.)
  await until("the last page shows the way in", () => new URL(pages[7].url()).pathname === "/login");
  await context.close();
});

test("another site's page cannot show it in a frame or send its forms", async () => {
  const { context, page } = await lab.signedIn("dana");
  const [, , waits] = ids;
  const html = `<!doctype html><title>elsewhere</title><iframe src="${lab.url}/queue"></iframe>
    <form method="post" action="${lab.url}/requests/${waits}/decide">
    <input name="form_token" value="guessed"><button name="decision" value="approve">Win</button></form>`;
  const server = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(html));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const framed = page.frames()[1];
  await until("the frame has come to nothing", async () =>
    /^(chrome-error:|about:)/.test(framed.url()) || (await framed.title()) === "",
  );
  assert.equal(await framed.locator("[data-list]").count(), 0);
  await page.getByRole("button", { name: "Win" }).click();
  await page.getByText("sent by another site").waitFor();
  assert.equal((await lab.ask(`/requests/${waits}`)).state, "pending");
  server.close();
  await context.close();
});

test("a phone shows the queue and decides", async () => {
  const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };
  const { context, page } = await lab.signedIn("lee", phone);
  await page.locator("[data-live][data-on=true]").waitFor();
  await page.getByRole("link", { name: /dana/ }).tap();
  await page.locator("h1:focus").waitFor();
  await picture(page, "phone");
  await page.getByRole("button", { name: "Reject" }).tap();
  await page.locator(".band", { hasText: "This request is rejected by lee" }).waitFor();
  await context.close();
});
