// Keeps an open queue true: what happens comes in, and what it changes is read again and put in
// place. Focus, scroll position and what somebody is typing stay.

import * as alerts from "./alerts.js";
import * as beforehand from "./beforehand.js";
import * as clock from "./clock.js";
import * as detail from "./detail.js";
import * as keys from "./keys.js";
import * as list from "./list.js";
import { follow } from "./live.js";

const away = document.querySelector("[data-away]");
const other = document.querySelector("[data-other]");
const live = document.querySelector("[data-live]");

// Milliseconds that changes are gathered for, so that a burst of them is one look; and until it is
// looked again after one that failed.
const GATHER = 100;
const AGAIN = 1000;

// Whose page this is.
const me = list.me();

// What has changed since the last look; "all" when it is not known what.
let changed = new Set();
let approvals = false;
let looking = false;
let streaming = false;
let greeted = false;
let timer;
let due;

// The earliest look that was asked for is the one that happens.
function soon(after) {
  const at = Date.now() + after;
  if (timer && due <= at) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(() => {
    timer = undefined;
    look();
  }, after);
}

async function look() {
  if (looking) return;
  looking = true;
  try {
    while (changed.size) {
      const ids = [...changed];
      changed = new Set();
      const all = ids.includes("all");
      if (all || approvals) {
        approvals = false;
        await beforehand.refresh();
      }
      const whole = all || list.partial || list.goesOn() || ids.length > 50;
      const added = [];
      // Behind a part that goes on, single cards say what is new; the part says what is in it.
      if (!all && ids.length <= 50) added.push(...(await list.update(ids)));
      if (whole) added.push(...(await list.refresh(detail.shown())));
      if (all || ids.includes(detail.shown())) await detail.refresh().catch(refused);
      await openFirst();
      // The first look finds what was there before somebody came.
      if (greeted && added.length) {
        alerts.tell(added);
        detail.say(waitingNow());
      }
      greeted = true;
    }
    connected(streaming);
  } catch (error) {
    if (!(error instanceof list.Refused)) {
      // Of what was missed, nothing is known.
      changed.add("all");
      connected(false);
      soon(AGAIN);
    }
  } finally {
    looking = false;
  }
}

// What the gate says no to stays as it is.
function refused(error) {
  if (!(error instanceof list.Refused)) throw error;
}

function waitingNow() {
  const total = list.waiting();
  return total === 1 ? "One request waits for a decision." : `${total} requests wait for a decision.`;
}

// An empty place takes what comes first.
async function openFirst() {
  const first = list.cards()[0]?.dataset.request;
  if (!detail.shown() && first) await detail.open(first).catch(refused);
}

function connected(yes) {
  const now = list.me();
  const same = now === me;
  away.hidden = yes;
  other.hidden = same;
  if (!same) {
    other.textContent = `You are signed in as ${now} in this browser now, and this page is ${me}'s. Reload it to go on.`;
  }
  const state = yes ? "Live" : "Not connected";
  if (live.textContent !== state) live.textContent = state;
  live.dataset.on = yes;
  if (!same) detail.decidable("Reload the page: somebody else is signed in.");
  else detail.decidable(yes ? "" : "Deciding is off until the gate answers.");
}

// A card opens beside the list, unless somebody wants it elsewhere.
document.querySelector("[data-list]").addEventListener("click", async (event) => {
  const link = event.target.closest("[data-request]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  try {
    if (!(await detail.open(link.dataset.request))) return;
    if (link.href !== location.href) history.pushState(null, "", link.href);
    here = location.pathname + location.search;
    detail.headline().focus();
    // What has changed while it was fetched.
    changed.add(link.dataset.request);
    soon(0);
  } catch {
    // What is shown stays; what was written, too.
    detail.say("It cannot be opened now: the gate does not answer.");
    changed.add("all");
    soon(AGAIN);
  }
});

// Back and forward lead to another request; a jump within the page leads nowhere else.
let here = location.pathname + location.search;
addEventListener("popstate", () => {
  if (location.pathname + location.search !== here) location.reload();
});

const article = document.querySelector("[data-detail] article");
if (article && article.dataset.state !== "pending") {
  // What became of a decision is what its maker wants to hear first.
  detail.forget(article.dataset.shown);
  detail.headline().focus();
  detail.say(article.querySelector(".band")?.textContent ?? "");
}
clock.set(document.querySelector("[data-now]").dataset.now);
clock.start();
beforehand.watch();
alerts.dress();
keys.listen();
detail.dress();
follow({
  hello: () => {
    streaming = true;
    changed.add("all");
    soon(0);
  },
  change: (id) => {
    changed.add(id);
    soon(GATHER);
  },
  beforehand: (id) => {
    approvals = true;
    changed.add(id);
    soon(GATHER);
  },
  away: () => {
    streaming = false;
    connected(false);
    // Signed out, perhaps: looking finds out.
    changed.add("all");
    soon(AGAIN);
  },
});
