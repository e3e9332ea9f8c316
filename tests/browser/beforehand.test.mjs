// What reviewers approve before the calls come: made beside a request, shown above the queue with its
// time running out, used, and ended, with two people looking on.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { faultless, Lab, picture, token, until } from "./lab.mjs";

const RULES = `
rules:
- name: look-each-time
  when: arguments.version == 'v1'
  require: {every_time: true}
`;

let lab;
let visitors = [];
before(async () => {
  // The shortest time that is offered is the longest there is: it runs out while a test looks.
  lab = await Lab.start({ rules: RULES }, "--preapproval-for=20", "--preapproval-uses=3");
});
after(() => lab.stop());
afterEach(async () => {
  const complaints = visitors.flatMap((visitor) => visitor.complaints);
  for (const { context } of visitors) await context.close();
  visitors = [];
  const { pending } = await lab.ask("/pending");
  for (const { id } of pending) await post("lee", `/decide/${id}`, { approved: false, reason: "over" });
  const { preapprovals } = await lab.ask("/preapprovals");
  for (const { id } of preapprovals) await end(id);
  assert.deepEqual(complaints, []);
});

async function reviewer(name, options) {
  const visitor = await lab.signedIn(name, options);
  visitors.push(visitor);
  await visitor.page.locator("[data-live][data-on=true]").waitFor();
  return visitor.page;
}

const post = (who, path, body) =>
  fetch(lab.admin + path, {
    method: "POST",
    headers: { authorization: `Bearer ${token(who)}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });

const end = (id) =>
  fetch(`${lab.admin}/preapprovals/${id}`, {
    method: "DELETE",
    headers: { authorization: `Bearer ${token("lee")}` },
  });

const above = (page) => page.getByRole("region", { name: /Approved beforehand/ });

/// Approves the like of the one request that waits; the version it asks for and one more.
async function approveTheLike(page, id, { uses = "2" } = {}) {
  await page.goto(`/requests/${id}`);
  await page.getByText("Approve calls like this beforehand").click();
  const condition = page.getByLabel(/a condition about/);
  assert.equal(await condition.inputValue(), 'arguments.version == "v3" && size(arguments) == 1');
  await condition.fill('arguments.version in ["v3", "v4"]');
  await page.getByLabel("At most, calls").fill(uses);
  await page.getByLabel("Reason, kept in the audit").fill("release night");
  await faultless(page, "the form");
  await picture(page, "beforehand-form");
  await page.getByRole("button", { name: "Approve beforehand" }).click();
  await above(page).getByText("release night").waitFor();
}

test("a reviewer approves calls beforehand, they pass, and everybody sees how many are left", async () => {
  const [dana, lee] = [await reviewer("dana"), await reviewer("lee", { colorScheme: "dark" })];
  assert.equal(await above(dana).count(), 0, "nothing is approved beforehand yet");
  const call = lab.call("carol", { version: "v3" });
  const { id } = await lab.waiting();
  await approveTheLike(dana, id);
  // The other one sees it without asking, with its time running out.
  await above(lee).getByText("used 0 of 2").waitFor();
  const left = above(lee).locator("[data-until]");
  const first = await left.textContent();
  await until("the time goes on", async () => (await left.textContent()) !== first);
  await faultless(lee, "the list, dark");
  await picture(lee, "beforehand-dark");
  const passed = await lab.call("carol", { version: "v4" });
  assert.match(passed.text, /v4/);
  await above(lee).getByText("used 1 of 2").waitFor();
  // This one still waits; its caller's retry is one of them.
  assert.equal((await lab.ask(`/requests/${id}`)).state, "pending");
  const again = await lab.call("carol", { version: "v3" });
  assert.equal(again.status, 200);
  await above(lee).waitFor({ state: "hidden" });
  await lee.goto(`/requests/${id}`);
  const band = lee.locator(".band", { hasText: "This request is approved beforehand by dana, released" });
  await band.getByText("It was approved beforehand: the call passed at once.").waitFor();
  lab.forget(call);
});

test("anybody who may decide ends it, and the calls wait again", async () => {
  const [dana, lee] = [await reviewer("dana"), await reviewer("lee")];
  const call = lab.call("carol", { version: "v3" });
  const { id } = await lab.waiting();
  await approveTheLike(dana, id);
  await above(lee).getByRole("button", { name: "End" }).click();
  await lee.waitForURL("**/queue");
  await above(lee).waitFor({ state: "hidden" });
  await above(dana).waitFor({ state: "hidden" });
  const other = lab.call("carol", { version: "v4" });
  await lab.waiting(2);
  const { events } = await lab.ask(`/requests/${id}`);
  const ended = events.find((event) => event.kind === "preapproval_ended");
  assert.equal(ended.data.reviewer, "lee");
  lab.forget(call);
  lab.forget(other);
});

test("one that runs out goes from the page by itself, at 320 pixels, too", async () => {
  const page = await reviewer("dana", { viewport: { width: 320, height: 720 } });
  const call = lab.call("carol", { version: "v3" });
  const { id } = await lab.waiting();
  await approveTheLike(page, id);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 320, `${wide} pixels wide`);
  await faultless(page, "320 pixels");
  await picture(page, "beforehand-320");
  await above(page).waitFor({ state: "hidden" });
  lab.forget(call);
});

test("where somebody must look each time, or it is one's own, it is not offered", async () => {
  const dana = await reviewer("dana");
  const call = lab.call("carol", { version: "v1" });
  const { id } = await lab.waiting();
  await dana.goto(`/requests/${id}`);
  await dana.getByText("somebody must look each time").waitFor();
  assert.equal(await dana.locator("[data-offer]").count(), 0);
  const own = lab.call("dana", { version: "v3" });
  await lab.waiting(2);
  await dana.goto("/queue");
  await dana.locator("[data-list] a", { hasText: "yours" }).click();
  await dana.getByText("somebody else must decide.", { exact: false }).first().waitFor();
  assert.equal(await dana.locator("[data-offer]").count(), 0);
  lab.forget(call);
  lab.forget(own);
});

test("what is being written stays while things happen, and what is wrong is said", async () => {
  const page = await reviewer("dana");
  const call = lab.call("carol", { version: "v3" });
  const { id } = await lab.waiting();
  await page.goto(`/requests/${id}`);
  await page.getByText("Approve calls like this beforehand").click();
  await page.getByLabel("Reason, kept in the audit").fill("half a rea");
  const other = lab.call("erin", { version: "v2" });
  await page.locator("[data-list] li", { hasText: "erin" }).waitFor();
  await post("lee", `/requests/${id}/preapprove`, { condition: "true", uses: 1, seconds: 20, reason: "mine" });
  await above(page).getByText("mine").waitFor();
  assert.equal(await page.getByLabel("Reason, kept in the audit").inputValue(), "half a rea");
  await page.getByLabel(/a condition about/).fill('arguments.version == "v9"');
  await page.getByRole("button", { name: "Approve beforehand" }).click();
  await page.getByText("it does not hold for this very call").waitFor();
  await page.getByRole("link").first().click();
  await page.waitForURL(`**/requests/${id}`);
  lab.forget(call);
  lab.forget(other);
});
