// Keys for whoever decides often. They arm, Enter confirms: no single key decides anything.

import * as detail from "./detail.js";
import * as list from "./list.js";
import { on } from "./alerts.js";

const help = document.querySelector("[data-keys-help]");

const keys = {
  j: () => list.move(1),
  k: () => list.move(-1),
  a: () => arm("approve"),
  r: () => arm("reject"),
  "/": () => document.querySelector("#q").focus(),
  "?": () => help.showModal(),
  Escape: () => detail.headline()?.focus(),
};

// Puts the focus on a button, where Enter presses it.
function arm(decision) {
  const button = detail.button(decision);
  if (!button) return detail.say("There is nothing here for you to decide.");
  if (button.disabled) {
    const why = document.querySelector("[data-unlooked]:not([hidden])")?.textContent;
    return detail.say(why ?? "Deciding is off until the gate is back.");
  }
  button.focus();
  detail.say(`${button.textContent}: ${detail.headline().textContent}. Enter confirms, Escape lets go.`);
}

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (!on("keys") || event.ctrlKey || event.metaKey || event.altKey) return;
    const writes = "input:not([type=radio]), textarea, select, dialog[open]";
    if (event.target.closest(writes)) return;
    const action = keys[event.key];
    // One that is held down moves on, and does nothing else.
    if (!action || (event.repeat && !"jk".includes(event.key))) return;
    event.preventDefault();
    action();
  });
}
