// The four scenes in kagent's own dashboard, with each agent of a lab on kind, and a reviewer in the queue.
// LAB says where they are: {"dashboard", "agents", "queue", "state"}.
//
// Of kagent's page only roles and texts are used that a person sees.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { until } from "./lab.mjs";

const { CHROMIUM_BIN, OUT } = process.env;
const { dashboard, agents, queue, state } = JSON.parse(process.env.LAB ?? "{}");

const FREEZE = "schema freeze until Monday, see CHG-1234";
const MONTH_END = "month end – ask me again on the 1st";

let browser;
let user;
let reviewer;

before(async () => {
  mkdirSync(OUT, { recursive: true });
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  browser = await chromium.launch({ executablePath: CHROMIUM_BIN, args });
  const page = async (url) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
    const page = await context.newPage();
    await page.goto(url);
    return page;
  };
  user = await page(dashboard);
  await user.getByRole("button", { name: "Skip wizard" }).click();
  reviewer = await page(queue);
  await reviewer.getByRole("button", { name: "Sign in" }).click();
  await reviewer.waitForURL("**/queue");
});
after(() => browser?.close());

const look = (name) => user.screenshot({ path: join(OUT, `${name}.png`), fullPage: true });
const account = async () => (await fetch(state)).json();
// The page has a main element around another.
const chat = () => user.locator("main").last();
const count = async (text) => (await chat().innerText()).split(text).length - 1;

async function open(agent) {
  await user.goto(`${dashboard}/agents/kagent/${agent}/chat`);
  await user.getByRole("textbox").waitFor();
}

async function say(text) {
  const box = user.getByRole("textbox");
  await until("the chat takes words", () => box.isEnabled());
  await box.fill(text);
  await user.getByRole("button", { name: "Send" }).click();
}

/// What the chat shows holds this text, exactly so often: live, and after a reload.
async function shows(text, times, name) {
  await until(`${text} is shown`, async () => (await count(text)) >= times);
  await until("the turn has ended", () => user.getByRole("textbox").isEnabled());
  assert.equal(await count(text), times, `live: ${text}`);
  await look(name);
  await user.reload();
  await until(`${text} is shown after a reload`, async () => (await count(text)) >= times);
  assert.equal(await count(text), times, `after a reload: ${text}`);
  await look(`${name}-reloaded`);
}

/// Has the reviewer decide the migration that waits.
async function review(to, act) {
  await reviewer.goto(new URL("/queue", queue).href);
  const request = reviewer.getByRole("heading", { name: new RegExp(`to ${to}`) });
  await until(`the migration to ${to} is in the queue`, async () => {
    if (await request.count()) return true;
    await reviewer.reload();
    return false;
  });
  await act();
}

const approve = () => reviewer.getByRole("button", { name: "Approve once" }).click();

async function reject() {
  await reviewer.getByLabel("In your words").fill(FREEZE);
  await reviewer.getByRole("button", { name: "Reject" }).click();
}

for (const agent of agents) {
  test(`${agent}: the stage is set`, async () => {
    if ((await account()).schema_version === "v2") return;
    await open(agent);
    await say("migrate to v2");
    await review("v2", approve);
    await until("the schema is at v2", async () => (await account()).schema_version === "v2");
  });

  test(`${agent}: scene 1, a read needs no approval`, async () => {
    await open(agent);
    await say("what's in the orders table?");
    await shows("globex", 1, `${agent}-1`);
    assert.equal(await user.getByRole("button", { name: "Approve" }).count(), 0);
  });

  test(`${agent}: scene 2, the user approves one truncate and rejects another`, async () => {
    await open(agent);
    await say("truncate customers");
    await user.getByRole("button", { name: "Approve" }).click();
    await until("customers is empty", async () => (await account()).row_counts.customers === 0);
    await open(agent);
    const { orders } = (await account()).row_counts;
    await say("truncate orders");
    await user.getByRole("button", { name: "Reject" }).click();
    await user.getByPlaceholder(/Why are you rejecting/).fill(MONTH_END);
    await user.getByRole("button", { name: "Reject" }).last().click();
    await until("the reason comes back", async () => (await count(MONTH_END)) > 0);
    await until("the turn has ended", () => user.getByRole("textbox").isEnabled());
    await user.reload();
    await until("the reason is there after a reload", async () => (await count(MONTH_END)) > 0);
    await look(`${agent}-2-rejected`);
    assert.equal((await account()).row_counts.orders, orders);
  });

  test(`${agent}: scene 3, a reviewer approves a migration`, async () => {
    await open(agent);
    await say("apply migration v3");
    await review("v3", approve);
    await until("the schema is at v3", async () => (await account()).schema_version === "v3");
    await until("the turn has ended", () => user.getByRole("textbox").isEnabled());
    await look(`${agent}-3`);
  });

  test(`${agent}: scene 4, a reviewer rejects a migration`, async () => {
    await open(agent);
    await say("apply migration v4");
    await review("v4", reject);
    await until("the reason comes back", async () => (await count(FREEZE)) > 0);
    await look(`${agent}-4`);
    assert.equal((await account()).schema_version, "v3");
  });
}
