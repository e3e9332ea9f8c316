// Keeps an open conversation true: text as it is written, what has changed, and how long a call has
// been held. Everything it sends is a form of the page. Must never decide anything.

const main = () => document.querySelector("[data-conversation]");
const announce = document.querySelector("[data-announce]");

let listening;

// Puts a page's conversation in place of what is shown; what is being written stays.
function put(html, url) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const [old, next] = [main(), fresh.querySelector("[data-conversation]")];
  if (!next) return location.assign(url);
  const [written, again] = [old.querySelector("[data-reason]"), next.querySelector("[data-reason]")];
  if (written && again) again.value = written.value;
  const inside = old.contains(document.activeElement) && document.activeElement.id;
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  const asked = !old.querySelector("[data-question]") && next.querySelector("[data-question]");
  old.replaceWith(document.adoptNode(next));
  const list = document.querySelector(".list ul");
  list.replaceWith(document.adoptNode(fresh.querySelector(".list ul")));
  [...main().querySelectorAll("details")].forEach((one, at) => (one.open = open[at] ?? false));
  if (asked) main().querySelector("#question").focus();
  else if (inside) document.getElementById(inside)?.focus();
  dress();
}

async function read(path, options) {
  const answer = await fetch(path, options);
  const html = await answer.text();
  if (!answer.ok) {
    // What went wrong is a page of its own.
    document.body.innerHTML = new DOMParser().parseFromString(html, "text/html").body.innerHTML;
    return;
  }
  if (answer.url !== location.href) history.pushState(null, "", answer.url);
  put(html, answer.url);
}

async function send(event) {
  event.preventDefault();
  const form = event.target;
  const data = new URLSearchParams(new FormData(form, event.submitter));
  form.querySelectorAll("button").forEach((button) => button.setAttribute("aria-disabled", "true"));
  form.removeEventListener("submit", send);
  form.addEventListener("submit", (again) => again.preventDefault());
  await read(form.action, { method: "POST", body: data }).catch(() => form.submit());
}

function dress() {
  for (const form of main().querySelectorAll("form")) form.addEventListener("submit", send);
  const field = main().querySelector("#say");
  field?.addEventListener("keydown", (event) => {
    // Enter sends, with Shift it is a new line.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (field.value.trim()) field.form.requestSubmit();
    }
  });
  main().querySelector("[data-reason]")?.addEventListener("keydown", (event) => {
    // Enter would press the first button there is.
    if (event.key === "Enter") event.preventDefault();
  });
  // What is newest is what somebody wants to see.
  main().scrollIntoView({ block: "end" });
  if (main().querySelector("[data-working=true]")) listen();
  else {
    stop();
    field?.focus();
    const said = [...main().querySelectorAll(".said, .failed")].at(-1);
    if (said) announce.textContent = said.textContent;
  }
}

function stop() {
  listening?.close();
  listening = undefined;
}

function listen() {
  if (listening) return;
  const here = location.pathname;
  listening = new EventSource(`${here}/live`);
  let piece = "";
  const again = () => read(here).catch(() => setTimeout(again, 1000));
  listening.addEventListener("piece", (event) => {
    piece += JSON.parse(event.data);
    const place = main().querySelector("[data-piece]");
    if (place) place.textContent = piece;
  });
  listening.addEventListener("change", () => {
    piece = "";
    again();
  });
  for (const kind of ["over", "error"]) {
    listening.addEventListener(kind, () => {
      stop();
      // It may have gone on in the moment between.
      setTimeout(again, kind === "over" ? 0 : 1000);
    });
  }
}

// How long a call has been held; not announced each second.
setInterval(() => {
  for (const place of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, Math.floor((Date.now() - place.dataset.since) / 1000));
    const minutes = Math.floor(seconds / 60);
    place.textContent = minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
  }
}, 1000);

addEventListener("popstate", () => location.reload());
dress();
