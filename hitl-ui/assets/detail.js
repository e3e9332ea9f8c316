// The request that is open beside the list. Its parts are kept true one by one, so that nothing goes
// away under somebody who reads, or writes a reason. Must never decide anything: the form does.

import { on } from "./alerts.js";
import { fetched, parsed, select } from "./list.js";

const detail = document.querySelector("[data-detail]");
const announce = document.querySelector("[data-announce]");

// Why deciding is off, if it is: what stands here may be out of date, or somebody else's.
let off = "Deciding is off until the gate answers.";
// Long values that have not been opened yet.
let unseen = 0;
// Which opening is the latest.
let opening = 0;

export const shown = () => detail.querySelector("[data-shown]")?.dataset.shown;
export const headline = () => detail.querySelector("h1");

// Said to whoever hears the page. What is said at once is said together.
let saying = [];
export function say(text) {
  saying.push(text);
  if (saying.length > 1) return;
  setTimeout(() => {
    announce.textContent = saying.join(" ");
    saying = [];
  });
}

export function button(decision) {
  return detail.querySelector(`[data-decide] button[value=${decision}]`);
}

// Opens a request beside the list. Gives whether it is what somebody still wants to see.
export async function open(id) {
  const mine = ++opening;
  if (id === shown()) return true;
  const html = await fetched(`/requests/${encodeURIComponent(id)}/detail`);
  if (mine !== opening) return false;
  detail.innerHTML = html;
  select(id);
  dress();
  return true;
}

// Reads the open request again.
export async function refresh() {
  const id = shown();
  if (!id) return;
  const fresh = parsed(await fetched(`/requests/${id}/detail`)).querySelector("article");
  const article = detail.querySelector("article");
  if (article?.dataset.shown !== id) return;
  const stays = article.dataset.state === fresh.dataset.state;
  const inside = article.contains(document.activeElement);
  // Signed in anew in another tab: forms of before are worth nothing.
  for (const token of article.querySelectorAll("[name=form_token]")) token.value = fresh.dataset.formToken;
  const out = document.querySelector("header [name=form_token]");
  out.value = fresh.dataset.formToken;
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const name = part.dataset.part;
    const old = article.querySelector(`[data-part=${name}]`);
    // What somebody writes and has opened stays; arguments never change.
    if (name === "arguments" || (name === "decide" && stays)) continue;
    if (name === "beforehand" && Boolean(old.firstElementChild) === Boolean(part.firstElementChild)) continue;
    if (old.innerHTML !== part.innerHTML) replace(old, part);
  }
  article.dataset.state = fresh.dataset.state;
  if (!stays) {
    forget(id);
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

// Switches deciding on, or off with a reason. Buttons keep the focus: they say no when pressed.
export function decidable(why) {
  off = why;
  allow();
}

function allow() {
  for (const [decision, is] of [["reject", !off], ["approve", !off && unseen === 0]]) {
    button(decision)?.setAttribute("aria-disabled", String(!is));
  }
  detail.querySelector("[data-offer] button")?.setAttribute("aria-disabled", String(Boolean(off)));
}

const isOff = (one) => one.getAttribute("aria-disabled") === "true";

// Why a button does nothing now.
export function why(one) {
  return isOff(one) ? off || `Open what is long above before you approve: ${unseen} left.` : "";
}

// What only makes sense with a script. Once for each form.
export function dress() {
  const offer = detail.querySelector("[data-offer] form");
  if (offer && !offer.dataset.dressed) {
    offer.dataset.dressed = "yes";
    offer.addEventListener("keydown", (event) => {
      // Enter in a number is no approval of anything.
      if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();
    });
    offer.addEventListener("submit", (event) => {
      if (off) {
        event.preventDefault();
        say(off);
      }
    });
  }
  const form = detail.querySelector("[data-decide]");
  if (form && !form.dataset.dressed) {
    form.dataset.dressed = "yes";
    form.querySelector("[data-hint]").hidden = !on("keys");
    restore(form);
    form.addEventListener("input", () => {
      tell(form);
      keep(form);
    });
    form.addEventListener("keydown", (event) => {
      // Enter in a field would press the first button there is.
      if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();
    });
    form.addEventListener("submit", (event) => {
      tell(form);
      const no = why(event.submitter);
      if (no) {
        event.preventDefault();
        say(no);
        return;
      }
      off = "It has been sent.";
      // After the form's data has been taken: sent once is enough.
      setTimeout(allow);
    });
    tell(form);
    unseen = 0;
    if (form.querySelector("[data-looked]")) look(form);
  }
  allow();
}

// The browser fills in fields of before after this script has looked at them.
addEventListener("pageshow", () => {
  const form = detail.querySelector("[data-decide]");
  if (form) tell(form);
});

// What the agent will be told.
function tell(form) {
  const ready = form.elements.ready.value;
  const written = form.elements.reason.value.trim();
  const reason = ready && written ? `${ready}: ${written}` : ready || written;
  form.querySelector("[data-told]").textContent = reason
    ? `A platform reviewer denied this call. Nothing has run. Reason: ${reason}`
    : "A platform reviewer denied this call and gave no reason. Nothing has run.";
}

// What is being written about a request is kept in this tab until it is settled.
const draft = (id) => `hitl-draft-${id}`;

function keep(form) {
  const { ready, reason } = form.elements;
  try {
    sessionStorage.setItem(draft(shown()), JSON.stringify([ready.value, reason.value]));
  } catch {
    // A browser that keeps nothing.
  }
}

function restore(form) {
  try {
    const [ready, reason] = JSON.parse(sessionStorage.getItem(draft(shown())) ?? "[]");
    if (ready !== undefined) form.elements.ready.value = ready;
    if (reason) form.elements.reason.value = reason;
  } catch {
    // The same.
  }
}

export function forget(id) {
  try {
    sessionStorage.removeItem(draft(id));
  } catch {
    // The same.
  }
}

// Approving waits until everything long has been opened.
function look(form) {
  const box = form.querySelector("[data-looked]");
  const note = form.querySelector("[data-unlooked]");
  const rest = detail.querySelector("[data-rest]");
  const long = new Set(detail.querySelectorAll("[data-long]:not([open])"));
  if (rest) long.add(rest);
  // Much of what is short: it can only be said that it was read.
  if (!long.size) return;
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
