// Keeps an open queue true: what happens comes in, and what it changes is read again and put in
// place. Focus, scroll position and what somebody is typing stay.

import * as alerts from "./alerts.js";
import * as clock from "./clock.js";
import * as detail from "./detail.js";
import * as keys from "./keys.js";
import * as list from "./list.js";
import { follow } from "./live.js";

const away = document.querySelector("[data-away]");
const live = document.querySelector("[data-live]");

// Milliseconds that changes are gathered for, so that a burst of them is one look.
const GATHER = 100;

// What has changed since the last look; "all" when it is not known what.
let changed = new Set();
let looking = false;
let streaming = false;
let greeted = false;

async function look() {
  if (looking) return;
  looking = true;
  try {
    while (changed.size) {
      const ids = [...changed];
      changed = new Set();
      const before = list.waiting();
      const all = ids.includes("all");
      const whole = all || list.filtered || ids.length > 50;
      const added = whole ? await list.refresh(detail.shown()) : await list.update(ids);
      if (all || ids.includes(detail.shown())) await detail.refresh();
      await openFirst();
      // The first look finds what was there before somebody came.
      if (greeted && added.length) alerts.tell(added);
      if (greeted && list.waiting() > before) detail.say(waitingNow());
      greeted = true;
    }
    connected(streaming);
  } catch {
    // Of what was missed, nothing is known.
    changed = new Set(["all"]);
    connected(false);
    setTimeout(look, 1000);
  } finally {
    looking = false;
  }
}

function waitingNow() {
  const total = list.waiting();
  return total === 1 ? "One request waits for a decision" : `${total} requests wait for a decision`;
}

// An empty place takes what comes first.
async function openFirst() {
  const first = list.cards()[0]?.dataset.request;
  if (!detail.shown() && first) await detail.open(first);
}

function connected(yes) {
  away.hidden = yes;
  live.textContent = yes ? "Live" : "Not connected";
  live.dataset.on = yes;
  detail.connected(yes);
}

// A card opens beside the list, unless somebody wants it elsewhere.
document.querySelector("[data-list]").addEventListener("click", async (event) => {
  const link = event.target.closest("[data-request]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  try {
    await detail.open(link.dataset.request);
    history.pushState(null, "", link.href);
    detail.headline().focus();
  } catch {
    location.assign(link.href);
  }
});
addEventListener("popstate", () => location.reload());

clock.set(document.querySelector("[data-now]").dataset.now);
clock.start();
alerts.dress();
keys.listen();
detail.dress();
follow({
  hello: () => {
    streaming = true;
    changed.add("all");
    look();
  },
  change: (id) => {
    changed.add(id);
    setTimeout(look, GATHER);
  },
  away: () => {
    streaming = false;
    connected(false);
    // Signed out, perhaps: looking finds out.
    changed.add("all");
    look();
  },
});
