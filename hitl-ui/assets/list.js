// The list, kept true card by card: a card that is there stays where it is, a new one comes in at its
// place, one that was decided elsewhere stays, greyed, and says by whom.

import * as clock from "./clock.js";

const list = document.querySelector("[data-list]");
const count = document.querySelector("[data-count]");
const icon = document.querySelector("link[rel=icon]");

// Where this part of the queue is read, and whether it leaves something out.
const source = document.querySelector("[data-source]").dataset.source;
export const filtered = source.includes("?");

// Settled cards that may stay.
const KEPT = 30;

export const cards = () => [...list.querySelectorAll("[data-request]")];
export const card = (id) => list.querySelector(`[data-request="${CSS.escape(id)}"]`);
export const waiting = () => Number(list.querySelector("[data-total]").dataset.total);

export async function fetched(path) {
  const answer = await fetch(path, { headers: { accept: "text/html" } });
  // Signed out meanwhile: the page itself leads to signing in.
  if (answer.redirected) location.reload();
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
  count.textContent = total || "";
  document.title = total ? `(${total}) Queue · Approvals` : "Queue · Approvals";
  icon.href = `/assets/icon.svg?waiting=${total}`;
}

// Reads the whole part again. Gives the links of the cards that are new.
export async function refresh(selected) {
  const path = source + (filtered ? "&" : "?") + new URLSearchParams({ selected: selected ?? "" });
  const fresh = parsed(await fetched(path));
  list.querySelector(".more")?.remove();
  const more = fresh.querySelector(".more");
  if (more) list.append(more);
  const there = new Set([...fresh.querySelectorAll("[data-id]")].map((item) => item.dataset.id));
  const gone = [...list.querySelectorAll("[data-state=pending]")]
    .map((item) => item.dataset.id)
    .filter((id) => !there.has(id));
  const added = merge(fresh, true);
  if (gone.length) await update(gone);
  return added;
}

// Reads single cards again.
export async function update(ids) {
  const added = [];
  for (let from = 0; from < ids.length; from += 50) {
    const some = ids.slice(from, from + 50).join(",");
    added.push(...merge(parsed(await fetched(`/queue/cards?ids=${some}`)), false));
  }
  return added;
}

function merge(fresh, whole) {
  const place = list.querySelector("ul");
  const next = fresh.querySelector("ul");
  place.dataset.total = next.dataset.total;
  clock.set(next.dataset.now);
  const added = [];
  for (const item of [...next.children]) {
    const old = place.querySelector(`[data-id="${CSS.escape(item.dataset.id)}"]`);
    if (old) {
      old.dataset.state = item.dataset.state;
      const [mine, theirs] = [old.firstElementChild, item.firstElementChild];
      mine.classList.toggle("settled", theirs.classList.contains("settled"));
      // Not for nothing: what is being read or pointed at stays as it is.
      if (mine.innerHTML !== theirs.innerHTML) mine.innerHTML = theirs.innerHTML;
    } else if (item.dataset.state === "pending" && belongs(item.dataset.id, whole)) {
      // Ids sort by time.
      const behind = [...place.children].find((other) => other.dataset.id > item.dataset.id);
      place.insertBefore(item, behind ?? null);
      added.push(item.firstElementChild);
    }
  }
  prune(place);
  clock.tick();
  counted();
  return added;
}

// Whether a card is of this part: a part that leaves something out, or goes on elsewhere, knows only
// from the server.
function belongs(id, whole) {
  if (whole) return true;
  const last = list.querySelector("li:last-child")?.dataset.id ?? "";
  return !filtered && !(list.querySelector(".more") && id > last);
}

// Old settled cards go, unless that would move something somebody is at.
function prune(place) {
  if (place.matches(":hover, :focus-within")) return;
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

// Moves to the next card, or to the one before.
export function move(step) {
  const all = cards();
  const at = all.findIndex((link) => link === document.activeElement);
  const from = at >= 0 ? at : all.findIndex((link) => link.hasAttribute("aria-current"));
  const to = from < 0 ? 0 : from + step;
  all[Math.min(Math.max(to, 0), all.length - 1)]?.focus();
}
