// Keeps an open queue true: the gate's events come in, and what they change is fetched and put in
// place. Focus, scroll position and what somebody is typing stay. Must never decide anything.

const list = document.querySelector("[data-list]");
const detail = document.querySelector("[data-detail]");
const away = document.querySelector("[data-away]");
const live = document.querySelector("[data-live]");
const announce = document.querySelector("[data-announce]");
const count = document.querySelector("[data-count]");

const shown = () => detail.querySelector("[data-shown]")?.dataset.shown;

function counted() {
  const waiting = Number(list.querySelector("[data-waiting]")?.dataset.waiting ?? 0);
  count.textContent = waiting || "";
  document.title = waiting ? `(${waiting}) Queue · Approvals` : "Queue · Approvals";
  return waiting;
}

async function fetched(path) {
  const answer = await fetch(path, { headers: { accept: "text/html" } });
  // Signed out meanwhile: the page itself leads to signing in.
  if (answer.redirected) location.reload();
  if (!answer.ok) throw new Error(answer.status);
  return answer.text();
}

// Puts new content in place without taking the focus from whoever has it.
function put(place, html) {
  const focused = document.activeElement?.closest("[data-request]")?.dataset.request;
  const inside = focused && place.contains(document.activeElement);
  const top = place.scrollTop;
  place.innerHTML = html;
  place.scrollTop = top;
  if (inside) place.querySelector(`[data-request="${CSS.escape(focused)}"]`)?.focus();
}

async function refreshList() {
  const before = counted();
  const id = shown();
  put(list, await fetched(`/queue/list${id ? `?selected=${id}` : ""}`));
  const now = counted();
  if (now > before) announce.textContent = `${now} requests wait for a decision`;
}

async function refreshDetail(id) {
  const reason = detail.querySelector("textarea")?.value;
  put(detail, await fetched(`/requests/${id}/detail`));
  const field = detail.querySelector("textarea");
  if (field && reason) field.value = reason;
  dress();
}

// What only makes sense with a script: ready-made reasons, and what the agent will be told.
function dress() {
  const field = detail.querySelector("textarea");
  if (!field) return;
  const told = detail.querySelector("[data-told]");
  const tell = () => (told.textContent = field.value.trim() || "your reason");
  field.addEventListener("input", tell);
  detail.querySelector("[data-reasons]").hidden = false;
  for (const button of detail.querySelectorAll("[data-reason]")) {
    button.addEventListener("click", () => {
      field.value = button.textContent;
      tell();
      field.focus();
    });
  }
  tell();
}

function connected(yes) {
  away.hidden = yes;
  live.textContent = yes ? "Live" : "Not connected";
  live.dataset.on = yes;
  for (const button of detail.querySelectorAll("[data-decide] button")) button.disabled = !yes;
}

let last;
function connect() {
  const events = new EventSource("/live");
  events.addEventListener("hello", async () => {
    try {
      // Whatever has happened while nobody listened.
      await refreshList();
      const id = shown();
      if (id && last !== undefined) await refreshDetail(id);
      last = true;
      connected(true);
    } catch {
      again();
    }
  });
  events.addEventListener("change", async (event) => {
    try {
      const id = shown();
      if (!id && !detail.querySelector("article")) {
        await refreshList();
        const first = list.querySelector("[data-request]")?.dataset.request;
        if (first) await refreshDetail(first);
      } else if (id === event.data) {
        await refreshDetail(id);
      }
      await refreshList();
    } catch {
      again();
    }
  });
  const again = () => {
    events.close();
    connected(false);
    setTimeout(connect, 1000);
  };
  events.addEventListener("error", again, { once: true });
}

counted();
dress();
connect();
