// The four scenes as two people play them: a user in the chat, a reviewer in the queue, each in a
// browser of their own, over the whole lab. LAB says where it is: {"chat", "queue", "state"}.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { complain, faultless } from "./lab.mjs";

const { CHROMIUM_BIN, OUT } = process.env;
const { chat, queue, state } = JSON.parse(process.env.LAB ?? "{}");

let browser;
let user;
let reviewer;
const complaints = [];

before(async () => {
  mkdirSync(OUT, { recursive: true });
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  browser = await chromium.launch({ executablePath: CHROMIUM_BIN, args });
  const person = async (url) => {
    const context = await browser.newContext({ viewport: { width: 1100, height: 800 } });
    const page = await context.newPage();
    complain(page, complaints);
    await page.goto(url);
    return page;
  };
  user = await person(chat);
  reviewer = await person(queue);
  await reviewer.getByRole("button", { name: "Sign in" }).click();
  await reviewer.locator("[data-live][data-on=true]").waitFor();
});
after(() => browser.close());

async function say(text) {
  await user.getByPlaceholder("What do you want to do?").fill(text);
  await user.keyboard.press("Enter");
}

const said = (text) => user.locator(".said", { hasText: text }).last();
const done = () => user.getByPlaceholder("What do you want to do?").waitFor();
const look = (page, name) => page.screenshot({ path: join(OUT, `scene-${name}.png`) });
const account = async () => (await fetch(state)).json();

test("scene 1: a read needs nobody", async () => {
  await say("what's in the orders table?");
  await said("3 rows at schema v2").waitFor();
  await user.locator(".called", { hasText: "cluster_db_query" }).locator("summary").click();
  await user.getByRole("region", { name: /What cluster_db_query answered/ }).waitFor();
  await look(user, "1-read");
  assert.equal(await user.locator("[data-question]").count(), 0);
  await reviewer.getByText("Nothing waits for a decision").waitFor();
});

test("scene 2: a truncate is approved, and rejected, by the user in the chat", async () => {
  await say("truncate customers");
  await user.getByRole("heading", { name: "May this run?" }).waitFor();
  assert.equal((await account()).row_counts.customers, 3);
  await look(user, "2-card");
  await user.getByRole("button", { name: "Approve" }).click();
  await said("The customers table is empty now").waitFor();
  assert.equal((await account()).row_counts.customers, 0);
  await done();
  await say("truncate orders");
  await user.getByLabel(/Reason, if you reject/).fill("month end – ask Omar");
  // Enter in the reason decides nothing.
  await user.keyboard.press("Enter");
  assert.equal(await user.locator("[data-question]").count(), 1);
  await user.getByRole("button", { name: "Reject" }).click();
  await said("Reason: month end – ask Omar").waitFor();
  await look(user, "2-rejected");
  assert.equal((await account()).row_counts.orders, 3);
});

test("scene 3: a migration waits for the platform team, who approve it", async () => {
  await done();
  await say("apply migration v3");
  await user.locator(".held", { hasText: "is waiting for the platform team for" }).waitFor();
  await reviewer.getByRole("heading", { name: /Migrate the schema from v2 to v3/ }).waitFor();
  await look(user, "3-held");
  await look(reviewer, "3-queue");
  await reviewer.getByRole("button", { name: "Approve once" }).click();
  await reviewer.locator(".band", { hasText: "the call passed at once" }).waitFor();
  await said("The schema is at v3 now").waitFor();
  const { schema_version, audit } = await account();
  assert.equal(schema_version, "v3");
  assert.match(JSON.stringify(audit.at(-1).approval), /dana/);
});

test("scene 4: a migration is rejected, and the reason reaches the chat word for word", async () => {
  await done();
  await say("apply migration v4");
  await reviewer.goto(new URL("/queue", queue).href);
  await reviewer.getByLabel("Schema freeze").check();
  await reviewer.getByLabel("In your words").fill("until Monday, see CHG-1234");
  await reviewer.getByRole("button", { name: "Reject" }).click();
  await said("Reason: Schema freeze: until Monday, see CHG-1234").waitFor();
  await look(user, "4-rejected");
  assert.equal((await account()).schema_version, "v3");
  assert.deepEqual(complaints, []);
});

test("two calls are one question, decided each for itself", async () => {
  await user.getByRole("link", { name: "New conversation" }).click();
  await say("truncate orders and customers");
  const group = (name) => user.getByRole("group", { name: new RegExp(name) });
  await group("orders").getByLabel("Reject").check();
  await group("customers").getByLabel("Approve").check();
  await look(user, "5-two");
  await user.getByRole("button", { name: "Send decisions" }).click();
  await said("rejected by user").waitFor();
  await user.getByText("You decided: Approved 1 of 2").waitFor();
  assert.equal((await account()).row_counts.orders, 3);
});

test("what is held can be stopped by its asker, and by nobody else", async () => {
  await done();
  await say("roll back to v2");
  await user.locator(".held").waitFor();
  const address = user.url();
  const context = await browser.newContext();
  const stranger = await context.newPage();
  await stranger.goto(chat);
  await stranger.getByLabel("You are").fill("mallory");
  await stranger.getByRole("button", { name: "Change" }).click();
  await stranger.goto(address);
  await stranger.getByText("There is nothing here of yours.").waitFor();
  await context.close();
  await user.getByRole("button", { name: "Stop" }).click();
  await user.locator(".failed", { hasText: "Stopped by its user." }).waitFor();
  await reviewer.goto(new URL("/queue", queue).href);
  await reviewer.getByText("No caller is waiting now").waitFor();
  await reviewer.getByRole("button", { name: "Reject" }).click();
  await reviewer.locator(".band", { hasText: "rejected by dana" }).waitFor();
});

/// The Cookie header that a page is asked for with.
async function sent(page, url) {
  const answer = await page.goto(url);
  const { cookie = "" } = await answer.request().allHeaders();
  return cookie;
}

test("in one profile the chat is not sent the reviewer's session, nor the queue the chat's cookie", async () => {
  // By the link that the lab shows, and by the address that one may type.
  for (const link of [queue, queue.replace("queue.localhost", "localhost")]) {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(chat);
    await page.getByLabel("You are").fill("dana");
    await page.getByRole("button", { name: "Change" }).click();
    await page.goto(link);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.waitForURL("**/queue");
    const [toQueue, toChat] = [await sent(page, page.url()), await sent(page, chat)];
    assert.match(toQueue, /^hitl-session=[^;]+$/, link);
    assert.match(toChat, /^[^;=]+=dana$/, link);
    await context.close();
  }
});

test("without scripts the chat is plain forms", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(chat);
  await page.getByPlaceholder("What do you want to do?").fill("truncate orders");
  await page.getByRole("button", { name: "Send" }).click();
  const card = page.getByRole("heading", { name: "May this run?" });
  while (!(await card.count())) await page.reload();
  await page.getByRole("button", { name: "Reject" }).click();
  while (!(await page.getByText("rejected by user").count())) await page.reload();
  await context.close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const width of [320, 1440]) {
    test(`axe finds nothing in the chat, ${colorScheme} at ${width} px`, async () => {
      const viewport = { width, height: 800 };
      const context = await browser.newContext({ colorScheme, viewport });
      const page = await context.newPage();
      const check = async (what) => {
        await faultless(page, what);
        await page.screenshot({ path: join(OUT, `chat-${colorScheme}-${width}-${what}.png`) });
      };
      await page.goto(chat);
      await check("new");
      await page.getByPlaceholder("What do you want to do?").fill("truncate orders and customers");
      await page.keyboard.press("Enter");
      await page.getByRole("heading", { name: "May this run?" }).waitFor();
      await check("question");
      await page.getByRole("button", { name: "Stop" }).click();
      await page.getByPlaceholder("What do you want to do?").fill("what's in the orders table?");
      await page.keyboard.press("Enter");
      await page.locator(".said", { hasText: "at schema" }).waitFor();
      await page.locator(".called summary").last().click();
      await check("read");
      await page.goto(`${chat}/c/none`);
      await check("nothing");
      await context.close();
    });
  }
}
