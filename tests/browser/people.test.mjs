// People whom an identity provider knows: they sign in there, and the gate takes its word for who they
// are. The provider is a real one; two people approve what needs two, each in a browser of their own.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { faultless, freePort, Lab, picture, until } from "./lab.mjs";

/// How long an ID token lasts, in seconds.
const LIFETIME = 70;

const RULES = `
rules:
- name: two-people
  when: arguments.version in ['v3', 'v4']
  require: {approvals: 2, groups: [dba], risk: high, note: Look at the replicas first}
- name: by-security
  when: arguments.version == 'v1'
  require: {groups: [sec]}
`;

let lab;
let home;
let visitors = [];
before(async () => {
  const port = await freePort();
  // Another name than the provider's: cookies do not tell ports apart.
  home = `http://queue.localhost:${port}`;
  lab = await Lab.start({
    home,
    provider: [home, String(LIFETIME)],
    rules: RULES,
    ui: [`--listen=127.0.0.1:${port}`, `--url=${home}`],
  });
});
after(() => lab.stop());
afterEach(async () => {
  const complaints = visitors.flatMap((visitor) => visitor.complaints);
  for (const { context } of visitors) await context.close();
  visitors = [];
  assert.deepEqual(complaints, []);
});

async function visitor(options) {
  const found = await lab.visitor({ elsewhere: lab.provider, ...options });
  // The provider's own pages ask for a typeface from far away.
  await found.context.route(/googleapis/, (route) => route.abort());
  visitors.push(found);
  return found;
}

/// Signs in by way of the provider.
async function signIn(page, name) {
  await page.goto("/queue");
  await page.getByRole("link", { name: "Sign in at 127.0.0.1" }).click();
  await page.locator("input[name=login]").fill(name);
  await page.locator("input[name=password]").fill("any");
  await page.locator("button[type=submit]").click();
}

async function signedIn(name, options) {
  const found = await visitor(options);
  await signIn(found.page, name);
  await found.page.waitForURL(`${home}/queue`);
  return found;
}

test("two people approve what needs two, each signed in at the provider", async () => {
  const [ana, bo] = [await signedIn("ana"), await signedIn("bo", { colorScheme: "dark" })];
  await ana.page.getByText("ana@example.com").first().waitFor();
  const call = lab.call("carol", { version: "v3" });
  const { id } = await lab.waiting();
  await Promise.all([ana, bo].map(({ page }) => page.goto(`/requests/${id}`)));
  await ana.page.getByText("2 approvals from dba").first().waitFor();
  await ana.page.getByText("Look at the replicas first").waitFor();
  await ana.page.getByText("high risk").first().waitFor();
  await faultless(ana.page, "needs two");
  await picture(ana.page, "needs-two");
  await ana.page.getByLabel("In your words").fill("looks right");
  await ana.page.getByRole("button", { name: "Approve once" }).click();
  await ana.page.getByText("You have approved this. It waits for 1 approval from dba").waitFor();
  // The other one sees it without asking.
  await bo.page.locator("[data-part=rules]", { hasText: "looks right" }).waitFor();
  await faultless(bo.page, "needs one more");
  await picture(bo.page, "needs-one-more");
  await bo.page.getByRole("button", { name: "Approve once" }).click();
  const { text } = await call;
  assert.match(text, /v3/);
  const { votes } = await lab.ask(`/requests/${id}`);
  assert.deepEqual(votes.map((vote) => vote.reviewer).sort(), ["ana@example.com", "bo@example.com"]);
  assert.deepEqual(votes[0].groups.includes("dba"), true);
});

test("who is in no group that counts sees why they cannot decide", async () => {
  const call = lab.call("carol", { version: "v1" });
  const { id } = await lab.waiting();
  const [ana, vic] = [await signedIn("ana"), await signedIn("vic")];
  await ana.page.goto(`/requests/${id}`);
  await ana.page.getByText("This needs 1 approval from sec, and you are in none").waitFor();
  await vic.page.goto(`/requests/${id}`);
  await vic.page.getByText("You may read here").waitFor();
  await faultless(vic.page, "a reader");
  assert.equal(await vic.page.getByRole("button", { name: "Approve once" }).count(), 0);
  const eve = await visitor();
  await signIn(eve.page, "eve");
  await eve.page.getByText("none of the groups that may see or decide: dba, support").waitFor();
  // A token of the list opens no other door.
  const form = { approved: false, reason: "over" };
  const headers = { authorization: "Bearer dana-token", "content-type": "application/json" };
  const body = JSON.stringify(form);
  const listed = await fetch(`${lab.admin}/decide/${id}`, { method: "POST", headers, body });
  assert.equal(listed.status, 403, "dana of the list is in dba, not in sec");
  lab.forget(call);
});

test("the way in looks right, comes back to where one wanted to go, and takes no other way", async () => {
  const { page, context } = await visitor();
  await page.goto("/history?state=denied");
  await page.getByRole("link", { name: "Sign in at 127.0.0.1" }).waitFor();
  await faultless(page, "login");
  await picture(page, "login-provider");
  await page.getByRole("link", { name: "Sign in at 127.0.0.1" }).click();
  await page.locator("input[name=login]").fill("ana");
  await page.locator("input[name=password]").fill("any");
  await page.locator("button[type=submit]").click();
  await page.waitForURL(`${home}/history?state=denied`);
  // An answer that nobody asked for, or of another time.
  for (const query of ["code=x&state=y", "", "error=access_denied&state=y"]) {
    const answer = await page.goto(`/callback?${query}`);
    assert.equal(answer.status(), 403, query);
    await page.getByText("was not begun here").waitFor();
  }
  const cookies = await context.cookies(home);
  for (const cookie of cookies) {
    assert.equal(cookie.httpOnly, true);
    assert.ok(!/ana|eyJ/.test(cookie.value), "a cookie that can be read");
  }
});

test("signing out ends it here and at the provider", async () => {
  const { page, context } = await signedIn("ana");
  const before = await context.cookies(home);
  await page.getByRole("button", { name: "Sign out" }).click();
  // The provider asks, as providers do.
  await page.locator("button[name=logout]").click();
  await page.waitForURL(`${home}/login**`);
  // The cookies are worth nothing any more, whoever has kept them.
  await context.addCookies(before.filter((cookie) => cookie.domain === "queue.localhost"));
  await page.goto("/queue");
  await page.waitForURL(`${home}/login**`);
  await page.getByRole("link", { name: "Sign in at 127.0.0.1" }).click();
  await page.locator("input[name=login]").waitFor();
});

for (const [name, what] of [
  ["ana", "a new one to change it by"],
  ["bo", "the same one to change it by"],
]) {
  test(`a token that ends is changed for a new one, and nobody notices: with ${what}`, async () => {
    const { page, context } = await signedIn(name);
    const kept = async () => {
      const cookies = await context.cookies(home);
      const ours = cookies.filter((cookie) => cookie.name.startsWith("hitl-session"));
      return ours.map((cookie) => cookie.value).join();
    };
    // A minute before its end, which is soon; and the new one again.
    for (const time of ["first", "second"]) {
      const before = await kept();
      await until(`a new token for the ${time} time`, async () => {
        await page.goto("/queue");
        return (await kept()) !== before;
      });
      await page.getByText(`${name}@example.com`).first().waitFor();
    }
  });
}

test("keys change, and the provider goes away", async () => {
  await fetch(`${lab.provider}/test/rotate`, { method: "POST" });
  const bo = await signedIn("bo");
  await bo.page.getByText("bo@example.com").first().waitFor();
  await lab.stopProvider();
  // Whoever is in stays in.
  await bo.page.reload();
  await bo.page.getByText("bo@example.com").first().waitFor();
  const call = lab.call("carol", { version: "v2" });
  const id = await until("the call waits", async () => {
    const { pending } = await lab.ask("/pending");
    return pending.find((request) => request.toolArgs.version === "v2")?.id;
  });
  await bo.page.goto(`/requests/${id}`);
  await bo.page.getByRole("button", { name: "Approve once" }).click();
  assert.equal((await call).status, 200);
});
