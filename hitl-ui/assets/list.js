// The list, kept true card by card: a card that is there stays where it is, a new one comes in at its
// place, one that was decided elsewhere stays, greyed, and says by whom.

import * as clock from "./clock.js";

const list = document.querySelector("[data-list]");
const count = document.querySelector("[data-count]");
const icon = document.querySelector("link[rel=icon]");

// Where this part of the queue is read, and whether it is not simply its beginning.
const source = document.querySelector("[data-source]").dataset.source;
export const partial = source.includes("?");

// Settled cards that may stay.
const KEPT = 30;

// Milliseconds after which a pointer that rests on the list points at nothing.
const RESTS = 60000;

// Milliseconds that an answer may take.
const PATIENCE = 15000;

let pointed = 0;
list.addEventListener("pointermove", () => (pointed = Date.now()), { passive: true });

export const cards = () => [...list.querySelectorAll("[data-request]")];
export const waiting = () => Number(list.querySelector("[data-total]").dataset.total);

// Whose list it is: another's, when somebody has signed in elsewhere in this browser.
export const me = () => list.querySelector("[data-me]").dataset.me;

const state = (link) => link.parentElement.dataset.state;

// What the gate or the queue says no to, which is not the same as being away.
export class Refused extends Error {}

export async function fetched(path) {
  const headers = { accept: "text/html" };
  const answer = await fetch(path, { headers, signal: AbortSignal.timeout(PATIENCE) });
  // Signed out meanwhile: the page itself leads to signing in.
  if (answer.redirected) location.reload();
  if (answer.status >= 400 && answer.status < 500) throw new Refused(answer.status);
  if (!answer.ok) throw new Error(answer.status);
  return answer.text();
}

export function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// Says how many wait, wherever that stands.
export function counted() {
  const total = waiting();
  const title = total ? `(${total}) Queue · Approvals` : "Queue · Approvals";
  if (document.title === title) return;
  document.title = title;
  count.textContent = total || "";
  icon.href = `/assets/icon.svg?waiting=${total}`;
}

// Reads the whole part again. Gives the links of the cards that are new.
export async function refresh(selected) {
  const path = source + (partial ? "&" : "?") + new URLSearchParams({ selected: selected ?? "" });
  const fresh = parsed(await fetched(path));
  const there = new Set([...fresh.querySelectorAll("[data-id]")].map((item) => item.dataset.id));
  const gone = [...list.querySelectorAll("[data-state=pending]")]
    .map((item) => item.dataset.id)
    .filter((id) => !there.has(id));
  const added = merge(fresh, true);
  for (const name of [".more", ".none"]) note(name, fresh.querySelector(name));
  if (gone.length) await update(gone);
  return added;
}

// A line below the cards: put there, changed in place, or taken away.
function note(name, next) {
  const old = list.querySelector(name);
  if (!next) old?.remove();
  else if (!old) list.append(next);
  else if (old.querySelector("a")) old.querySelector("a").href = next.querySelector("a").href;
}

// Reads single cards again. Gives the links of those that nobody has seen here before.
export async function update(ids) {
  const added = [];
  for (let from = 0; from < ids.length; from += 50) {
    const some = ids.slice(from, from + 50).join(",");
    added.push(...merge(parsed(await fetched(`/queue/cards?ids=${some}`)), false));
  }
  return added;
}

// Requests that were told of already, in the list or behind it.
const known = new Set(cards().map((link) => link.dataset.request));

function merge(fresh, whole) {
  const place = list.querySelector("ul");
  const next = fresh.querySelector("ul");
  place.dataset.total = next.dataset.total;
  place.dataset.me = next.dataset.me;
  clock.set(next.dataset.now);
  const added = [];
  for (const item of [...next.children]) {
    const { id } = item.dataset;
    const old = place.querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (old) {
      // Only when it says something else: what is being read or pressed stays as it is.
      if (old.dataset.version !== item.dataset.version) {
        const [mine, theirs] = [old.firstElementChild, item.firstElementChild];
        mine.classList.toggle("settled", theirs.classList.contains("settled"));
        mine.innerHTML = theirs.innerHTML;
        old.dataset.state = item.dataset.state;
        old.dataset.version = item.dataset.version;
      }
    } else if (item.dataset.state === "pending") {
      if (!known.has(id)) added.push(item.firstElementChild);
      // Ids sort by time.
      if (belongs(id, whole)) {
        const behind = [...place.children].find((other) => other.dataset.id > id);
        place.insertBefore(item, behind ?? null);
      }
    }
    if (item.dataset.state === "pending") known.add(id);
    else known.delete(id);
  }
  prune(place);
  clock.tick();
  counted();
  return added;
}

// Whether a card is of this part: one that leaves something out, or goes on elsewhere, knows only
// from the server.
function belongs(id, whole) {
  if (whole) return true;
  const last = list.querySelector("li:last-child")?.dataset.id ?? "";
  return !partial && !(goesOn() && id > last);
}

// Whether there is more behind this part.
export const goesOn = () => Boolean(list.querySelector(".more"));

// Old settled cards go, unless that would move something somebody is at.
function prune(place) {
  const pointedAt = place.matches(":hover") && Date.now() - pointed < RESTS;
  if (pointedAt || place.matches(":focus-within")) return;
  const settled = [...place.children].filter(
    (item) => item.dataset.state !== "pending" && !item.querySelector("[aria-current]"),
  );
  for (const item of settled.slice(0, Math.max(0, settled.length - KEPT))) item.remove();
}

// Marks the card that is open.
export function select(id) {
  for (const link of cards()) {
    if (link.dataset.request === id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

// Moves to the next card that waits, or to the one before.
export function move(step) {
  const all = cards();
  const focused = all.indexOf(document.activeElement);
  const from = focused >= 0 ? focused : all.findIndex((link) => link.hasAttribute("aria-current"));
  let to = from + step;
  while (all[to] && state(all[to]) !== "pending") to += step;
  (all[to] ?? all[from])?.focus();
}
