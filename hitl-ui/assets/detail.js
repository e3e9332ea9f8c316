// The request that is open beside the list. Its parts are kept true one by one, so that nothing goes
// away under somebody who reads, or writes a reason. Must never decide anything: the form does.

import { fetched, parsed, select } from "./list.js";
import { on } from "./alerts.js";

const detail = document.querySelector("[data-detail]");
const announce = document.querySelector("[data-announce]");

// Whether deciding is off because what stands here may be out of date.
let away = true;
// Long values that have not been opened yet.
let unseen = 0;
// Which opening is the latest.
let opening = 0;

export const shown = () => detail.querySelector("[data-shown]")?.dataset.shown;
export const headline = () => detail.querySelector("h1");
export const say = (text) => (announce.textContent = text);

export function button(decision) {
  return detail.querySelector(`[data-decide] button[value=${decision}]`);
}

// Opens a request beside the list.
export async function open(id) {
  const mine = ++opening;
  const html = await fetched(`/requests/${encodeURIComponent(id)}/detail`);
  if (mine !== opening) return;
  detail.innerHTML = html;
  select(id);
  dress();
}

// Reads the open request again.
export async function refresh() {
  const id = shown();
  if (!id) return;
  const mine = opening;
  const fresh = parsed(await fetched(`/requests/${id}/detail`)).querySelector("article");
  const article = detail.querySelector("article");
  if (mine !== opening || article?.dataset.shown !== id) return;
  const stays = article.dataset.state === fresh.dataset.state;
  const inside = article.contains(document.activeElement);
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const name = part.dataset.part;
    const old = article.querySelector(`[data-part=${name}]`);
    // What somebody writes and has opened stays; arguments never change.
    if (name === "arguments" || (name === "decide" && stays)) continue;
    if (old.innerHTML !== part.innerHTML) replace(old, part);
  }
  article.dataset.state = fresh.dataset.state;
  if (!stays) {
    say(detail.querySelector(".band")?.textContent ?? "");
    if (inside && !article.contains(document.activeElement)) headline().focus();
  }
  dress();
}

// Puts a part in place of another; the focus goes to what stands where it was.
function replace(old, part) {
  const places = "a, button, summary, [tabindex]";
  const at = [...old.querySelectorAll(places)].indexOf(document.activeElement);
  old.replaceWith(part);
  if (at >= 0) part.querySelectorAll(places)[at]?.focus({ preventScroll: true });
}

// Whether deciding is possible, by the state of the connection.
export function connected(yes) {
  away = !yes;
  allow();
}

function allow() {
  const [reject, approve] = [button("reject"), button("approve")];
  if (!reject) return;
  reject.disabled = away;
  approve.disabled = away || unseen > 0;
}

// What only makes sense with a script. Once for each form.
export function dress() {
  const form = detail.querySelector("[data-decide]");
  if (form && !form.dataset.dressed) {
    form.dataset.dressed = "yes";
    form.querySelector("[data-hint]").hidden = !on("keys");
    form.addEventListener("input", () => tell(form));
    form.addEventListener("submit", () => {
      // After the form's data has been taken: sent once is enough.
      setTimeout(() => form.querySelectorAll("button").forEach((one) => (one.disabled = true)));
    });
    tell(form);
    unseen = 0;
    if (form.querySelector("[data-looked]")) look(form);
  }
  allow();
}

// What the agent will be told.
function tell(form) {
  const ready = form.elements.ready.value;
  const written = form.elements.reason.value.trim();
  const reason = ready && written ? `${ready}: ${written}` : ready || written;
  form.querySelector("[data-told]").textContent = reason
    ? `A platform reviewer denied this call. Nothing has run. Reason: ${reason}`
    : "A platform reviewer denied this call and gave no reason. Nothing has run.";
}

// Approving waits until everything long has been opened.
function look(form) {
  const box = form.querySelector("[data-looked]");
  const note = form.querySelector("[data-unlooked]");
  const rest = detail.querySelector("[data-rest]");
  const long = new Set(detail.querySelectorAll("[data-long]:not([open])"));
  if (rest) long.add(rest);
  const seen = (what) => {
    long.delete(what);
    unseen = long.size;
    note.hidden = unseen === 0;
    note.textContent = `Open what is long above before you approve: ${unseen} left.`;
    box.querySelector("input").checked = unseen === 0;
    allow();
  };
  box.hidden = true;
  for (const one of long) {
    one.addEventListener(one === rest ? "click" : "toggle", () => seen(one));
  }
  seen();
}
