// What a reviewer does at an open queue: see a call come, read it, decide, and learn what became of
// it; with others at the same queue, by keyboard, without scripts, and while the gate is away.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { Lab, picture, signIn, token, until } from "./lab.mjs";

let lab;
let visitors = [];
before(async () => (lab = await Lab.start()));
after(() => lab.stop());
afterEach(async () => {
  // A whole run without anything that the policy had to stop, or that went wrong in a script.
  const complaints = visitors.flatMap((visitor) => visitor.complaints);
  for (const { context } of visitors) await context.close();
  visitors = [];
  // The next test begins with an empty queue.
  for (const { id } of (await lab.ask("/pending")).pending) await reject(id);
  assert.deepEqual(complaints, []);
});

async function reviewer(name, options) {
  const visitor = await lab.signedIn(name, options);
  visitors.push(visitor);
  return visitor;
}

async function live(page) {
  await page.locator("[data-live][data-on=true]").waitFor();
}

/// Once everything that was asked for has been answered.
const quiet = (page) => page.waitForLoadState("networkidle").catch(() => {});

/// Somebody's card in the list.
const card = (page, requester) => page.locator("[data-list] li", { hasText: requester });

async function reject(id) {
  await fetch(`${lab.admin}/decide/${id}`, {
    method: "POST",
    headers: { authorization: `Bearer ${token("lee")}`, "content-type": "application/json" },
    body: JSON.stringify({ approved: false, reason: "over" }),
  });
}

test("a held call appears by itself, is read and approved, and its caller is released", async () => {
  const { page } = await reviewer("dana");
  await live(page);
  await page.getByText("Nothing waits for a decision").waitFor();
  const call = lab.call("u-first", { version: "v3" });
  const { id } = await lab.waiting();
  const began = Date.now();
  await card(page, "u-first").waitFor({ timeout: 1000 });
  assert.ok(Date.now() - began < 1000);
  await page.getByRole("heading", { name: /Migrate the schema from v2 to v3/ }).waitFor();
  assert.equal(await page.title(), "(1) Queue · Approvals");
  assert.match(await page.locator("link[rel=icon]").getAttribute("href"), /waiting=1$/);
  await page.locator(".sql", { hasText: "ALTER TABLE" }).waitFor();
  await page.getByText("A caller is waiting").waitFor();
  const held = page.locator(".band [data-since]").nth(1);
  const first = await held.textContent();
  await until("the time goes on", async () => (await held.textContent()) !== first);
  assert.equal(await page.locator("button:focus").count(), 0, "a button has the focus");
  await picture(page, "waiting");
  await page.getByRole("button", { name: "Approve once" }).click();
  await page.locator(".band", { hasText: "the call passed at once" }).waitFor();
  const { result } = await call;
  assert.deepEqual(result.structuredContent, { migrated: true, from: "v2", to: "v3" });
  assert.ok(page.url().endsWith(`/requests/${id}`));
  await picture(page, "approved");
});

test("a rejection reaches the agent with the words that were shown before it was sent", async () => {
  const { page } = await reviewer("dana");
  const call = lab.call("u-reject", { version: "v4" });
  await lab.waiting();
  await page.goto("/queue");
  await page.getByLabel("Schema freeze").check();
  await page.getByLabel("In your words").fill("until Monday");
  const told = await page.locator("[data-told]").textContent();
  assert.match(told, /Reason: Schema freeze: until Monday$/);
  await page.getByRole("button", { name: "Reject" }).click();
  await page.locator(".band", { hasText: "This request is rejected by dana" }).waitFor();
  const answer = await call;
  assert.equal(answer.status, 200);
  assert.ok(answer.text.includes(told), answer.text);
});

test("a new request moves nothing that is there, and what is written stays", async () => {
  const { page } = await reviewer("dana");
  lab.call("u-there", { version: "v4" });
  await lab.waiting(1);
  await page.goto("/queue");
  await live(page);
  const there = page.getByRole("link", { name: /u-there/ });
  await there.hover();
  const field = page.getByLabel("In your words");
  await field.fill("half a sen");
  const place = await there.boundingBox();
  lab.call("u-new", { version: "v4" });
  await lab.waiting(2);
  await card(page, "u-new").waitFor({ timeout: 1000 });
  assert.deepEqual(await there.boundingBox(), place);
  assert.equal(await field.inputValue(), "half a sen");
  assert.ok(await field.evaluate((one) => one === document.activeElement));
  // It says so to who cannot see it.
  await page.locator("[data-announce]", { hasText: "2 requests wait" }).waitFor();
  // Neither is a press on the card lost that is under way when something happens.
  await there.hover();
  await page.mouse.down();
  lab.call("u-newer", { version: "v4" });
  await card(page, "u-newer").waitFor();
  await page.mouse.up();
  await page.locator("h1:focus").waitFor();
  await page.locator(".lead", { hasText: "u-there" }).waitFor();
});

test("what another reviewer decides stays in sight, greyed, and says by whom", async () => {
  const [dana, lee] = [await reviewer("dana"), await reviewer("lee")];
  for (const user of ["u-one", "u-two"]) lab.call(user, { version: "v4" });
  const { id } = await lab.waiting(2);
  for (const { page } of [dana, lee]) {
    await page.goto(`/requests/${id}`);
    await live(page);
  }
  await dana.page.getByLabel("In your words").fill("too late");
  await lee.page.getByLabel("Wrong environment").check();
  await lee.page.getByRole("button", { name: "Reject" }).click();
  await lee.page.locator(".band", { hasText: "This request is rejected by lee" }).waitFor();
  const settled = dana.page.locator(`[data-request="${id}"].settled`);
  await settled.filter({ hasText: "rejected by lee" }).waitFor({ timeout: 2000 });
  await dana.page.locator(".band", { hasText: "rejected by lee" }).waitFor();
  assert.equal(await dana.page.locator("[data-decide]").count(), 0);
  await picture(dana.page, "decided-elsewhere");
});

test("everything can be done by keyboard, and no single key decides", async () => {
  const { page } = await reviewer("dana");
  for (const [already, user] of ["k-one", "k-two", "k-three"].entries()) {
    lab.call(user, { version: "v4" });
    await lab.waiting(already + 1);
  }
  await page.goto("/queue");
  await live(page);
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await picture(page, "keys");
  await page.keyboard.press("Escape");
  await page.keyboard.press("/");
  await page.keyboard.type("ajar");
  assert.equal(await page.getByRole("searchbox").inputValue(), "ajar", "keys are off in inputs");
  await page.locator("h1").focus();
  // From the one that is open to the next, and back.
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("k");
  await page.keyboard.press("Enter");
  await page.locator("h1:focus").waitFor();
  await page.locator(".lead", { hasText: "k-two" }).waitFor();
  await page.keyboard.press("r");
  const reject = page.getByRole("button", { name: "Reject" });
  assert.ok(await reject.evaluate((one) => one === document.activeElement));
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await page.keyboard.press("a");
  await page.keyboard.press("r");
  // A reason chosen by keys, and Enter on it, decide nothing either.
  await page.getByLabel("Schema freeze").focus();
  await page.keyboard.press("Space");
  await page.keyboard.press("Enter");
  const sent = [];
  page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
  await page.keyboard.press("r");
  await quiet(page);
  assert.deepEqual(sent, [], "a key alone has decided");
  // Held down, Enter decides once, and nothing else after it.
  for (let times = 0; times < 5; times += 1) await page.keyboard.down("Enter");
  await page.keyboard.up("Enter");
  await page.locator(".band", { hasText: "This request is rejected by dana" }).waitFor();
  await page.locator("h1:focus").waitFor();
  for (let times = 0; times < 5; times += 1) await page.keyboard.down("Enter");
  await page.keyboard.up("Enter");
  await quiet(page);
  assert.equal(sent.length, 1, sent.join());
  assert.equal((await lab.ask("/pending")).total, 2);
  // On from there to the next that waits.
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.locator(".lead", { hasText: "k-three" }).waitFor();

  // Switched off, they stay off.
  await page.getByText("Options", { exact: true }).click();
  await page.getByRole("checkbox", { name: /Keys/ }).uncheck();
  await page.goto("/queue");
  await live(page);
  await page.keyboard.press("a");
  assert.equal(await page.locator("button:focus").count(), 0);
});

test("without scripts everything is plain pages and forms", async () => {
  const { page } = await reviewer("dana", { javaScriptEnabled: false });
  const call = lab.call("u-plain", { version: "v4" });
  await lab.waiting();
  await page.goto("/queue");
  await page.getByText("A caller is waiting").waitFor();
  await page.getByRole("searchbox").fill("u-pl");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByRole("link", { name: /u-plain/ }).click();
  await page.getByLabel("Needs a DBA review first").check();
  await picture(page, "without-scripts");
  await page.getByRole("button", { name: "Reject" }).click();
  await page.locator(".band", { hasText: "This request is rejected by dana" }).waitFor();
  assert.match((await call).text, /Needs a DBA review first/);
  await page.getByRole("link", { name: "History" }).click();
  await page.getByLabel("Requester").fill("u-plain");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.getByRole("cell", { name: "rejected by dana" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByText("Sign in with the token").waitFor();
});

test("while the gate is away the page keeps what it showed, and comes back by itself", async () => {
  const { page } = await reviewer("dana");
  const lost = lab.call("u-away", { version: "v4" });
  await lab.waiting();
  await page.goto("/queue");
  await live(page);
  await page.getByLabel("In your words").fill("kept");
  await lab.killGate();
  await page.getByText("The gate does not answer").waitFor();
  await picture(page, "gate-away");
  for (const name of ["Approve once", "Reject"]) {
    assert.ok(await page.getByRole("button", { name }).isDisabled(), name);
  }
  assert.equal(await card(page, "u-away").count(), 1);
  assert.ok((await lost).status >= 500, "a gate that is away lets nothing pass");
  await lab.startGate();
  await live(page);
  await page.locator("[data-away]").waitFor({ state: "hidden" });
  assert.equal(await page.getByLabel("In your words").inputValue(), "kept");
  await page.getByText("No caller is waiting now").waitFor();
  // Approved now, it is kept; the same call again passes without anybody being asked.
  await page.getByRole("button", { name: "Approve once" }).click();
  await page.locator(".band", { hasText: "The approval is kept" }).waitFor();
  await picture(page, "kept");
  const { result } = await lab.call("u-away", { version: "v4" });
  assert.deepEqual(result.structuredContent, { migrated: true, from: "v3", to: "v4" });
  const outcome = page.locator(".band", { hasText: "The call passed when its caller came back" });
  await outcome.waitFor({ timeout: 2000 });
});

test("hostile arguments are text, and what is long is opened before it can be approved", async () => {
  const { page } = await reviewer("dana");
  const keys = Object.fromEntries(Array.from({ length: 10_000 }, (_, at) => [`key-${at}`, at]));
  const call = lab.call("<img src=x onerror=alert(1)>", {
    version: "</code><script>alert(document.cookie)</script>",
    bidi: "safe\u202etxt.exe\u2066",
    tags: "v3\u{e0041}\u{e0042}\u200b",
    "p\u0430ypal": "https://evil.example/ javascript:alert(1)",
    long: "x".repeat(200_000),
    keys,
  });
  const { id } = await lab.waiting();
  await page.goto(`/requests/${id}`);
  await live(page);
  const text = await page.locator("[data-part=arguments]").textContent();
  assert.ok(text.includes("<script>alert(document.cookie)</script>"));
  for (const hidden of ["U+202E", "U+2066", "U+E0041", "U+200B"]) {
    assert.ok(text.includes(hidden), hidden);
  }
  assert.ok(text.includes("string, 200000 characters") && text.includes("object, 10000 members"));
  assert.ok(text.includes("not “paypal”"));
  assert.equal(await page.locator("main img, main script, main a[href*=evil]").count(), 0);
  const approve = page.getByRole("button", { name: "Approve once" });
  assert.ok(await approve.isDisabled());
  await page.getByText("Open what is long above before you approve: 2 left.").waitFor();
  await picture(page, "hostile");
  await page.getByText("show all of it").click();
  await page.getByText("1 left").waitFor();
  const beside = page.context().waitForEvent("page");
  await page.getByRole("link", { name: /all arguments/ }).click();
  assert.match(await (await beside).locator("body").textContent(), /"key-9999": 9999/);
  assert.ok(await approve.isEnabled());
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await approve.click();
  await page.locator(".band", { hasText: "the call passed at once" }).waitFor();
  // The tool has an opinion of its own about such a version.
  assert.match((await call).text, /version/);
});

test("nobody decides about a request of their own", async () => {
  const { page } = await reviewer("alice");
  lab.call("alice", { version: "v1" });
  await lab.waiting();
  await page.goto("/queue");
  await page.locator("main", { hasText: "yours: somebody else must decide" }).waitFor();
  assert.equal(await page.locator("[data-decide]").count(), 0);
  await page.getByLabel("Only mine to decide").check();
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByText("Nothing that waits is like that").first().waitFor();
});

test("a tool that nobody knows is shown with what its server says of it, or that nobody does", async () => {
  const { page } = await reviewer("dana");
  lab.call("u-other", { database: "orders" }, "drop_database");
  await lab.waiting();
  await page.goto("/queue");
  await page.getByRole("heading", { name: /drop_database/ }).waitFor();
  await page.getByText("Nobody has said what this tool does").waitFor();
  await page.getByText("Effects unknown").first().waitFor();
});

test("what was begun is kept, and what is said about it is what will be sent", async () => {
  const { page } = await reviewer("dana");
  for (const [already, user] of ["d-one", "d-two"].entries()) {
    lab.call(user, { version: "v4" });
    await lab.waiting(already + 1);
  }
  await page.goto("/queue");
  await live(page);
  await page.getByLabel("Schema freeze").check();
  await page.getByLabel("In your words").fill("until Monday");
  const told = /Reason: Schema freeze: until Monday$/;
  // To another page and back; to another request and back; and by the skip link, nowhere.
  await page.getByRole("link", { name: "History" }).click();
  await page.goBack();
  await live(page);
  assert.match(await page.locator("[data-told]").textContent(), told);
  await page.getByRole("link", { name: /d-two/ }).click();
  await page.locator(".lead", { hasText: "d-two" }).waitFor();
  assert.equal(await page.getByLabel("In your words").inputValue(), "");
  await page.getByRole("link", { name: /d-one/ }).click();
  await page.locator(".lead", { hasText: "d-one" }).waitFor();
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.getByLabel("In your words").inputValue(), "until Monday");
  assert.match(await page.locator("[data-told]").textContent(), told);
});

test("who signs in elsewhere in the same browser does not decide on this page", async () => {
  const { context, page } = await reviewer("dana");
  lab.call("u-two-people", { version: "v4" });
  await lab.waiting();
  await page.goto("/queue");
  await live(page);
  const second = await context.newPage();
  await signIn(second, "lee");
  await page.getByText("You are signed in as lee in this browser now").waitFor();
  assert.ok(await page.getByRole("button", { name: "Reject" }).isDisabled());
  // The same reviewer anew: the form of before is brought up to date.
  await signIn(second, "dana");
  await page.locator("[data-other]").waitFor({ state: "hidden" });
  await live(page);
  await page.getByRole("button", { name: "Reject" }).click();
  await page.locator(".band", { hasText: "This request is rejected by dana" }).waitFor();
});

test("a page that is silent is noticed, and another one takes over", async () => {
  const { context, page } = await reviewer("dana");
  await live(page);
  const second = await context.newPage();
  await second.goto("/queue");
  await live(second);
  // The first one listens for both, and is kept busy.
  const busy = page.evaluate(() => {
    const end = Date.now() + 22000;
    while (Date.now() < end);
  });
  await second.bringToFront();
  lab.call("u-taken-over", { version: "v4" });
  await card(second, "u-taken-over").waitFor({ timeout: 17000 });
  await busy;
});

test("a notification is shown once it is wanted, and not for one's own", async () => {
  const { page } = await reviewer("dana", { permissions: ["notifications"] });
  await page.addInitScript(() => {
    globalThis.told = [];
    globalThis.Notification = class extends EventTarget {
      static permission = "granted";
      static requestPermission = async () => "granted";
      constructor(title, options) {
        super();
        globalThis.told.push([title, options.body]);
      }
    };
    document.hasFocus = () => false;
  });
  await page.goto("/queue");
  await live(page);
  lab.call("n-before", { version: "v4" });
  await card(page, "n-before").waitFor();
  await page.getByText("Options", { exact: true }).click();
  await page.getByLabel("Desktop notification").check();
  lab.call("dana", { version: "v4" });
  await card(page, "dana").waitFor();
  lab.call("n-after", { version: "v4" });
  const told = await until("it is told", async () => {
    const all = await page.evaluate(() => globalThis.told);
    return all.length && all;
  });
  assert.equal(told.length, 1);
  assert.match(told[0].join(), /run_migration.*n-after/s);
});

test("a link with a token signs in, and leaves no token in the address", async () => {
  const visitor = await lab.visitor();
  visitors.push(visitor);
  const { page } = visitor;
  await page.goto(`/login?next=%2Fhistory#token=${token("dana")}`);
  // By a link alone nobody is signed in.
  await page.locator("button:focus", { hasText: "Sign in" }).waitFor();
  assert.ok(page.url().endsWith("/login?next=%2Fhistory"), page.url());
  await page.keyboard.press("Enter");
  await page.waitForURL("**/history");
  await page.goBack();
  assert.ok(!page.url().includes("token"), page.url());
  // As `base64` writes them, too. (From a page without one: a change behind the # loads nothing.)
  await page.goto("/login");
  await page.goto("about:blank");
  await page.goto("/login#token=a+b/c%2F==");
  await page.locator("button:focus", { hasText: "Sign in" }).waitFor();
  assert.equal(await page.getByLabel("Token").inputValue(), "a+b/c/==");
  await page.goto("/login");
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").filter({ hasText: "does not know this token" }).waitFor();
  await signIn(page, "dana");
});
