// What a reviewer may switch on and off in this browser: notifications, a sound, keys.

const options = document.querySelector("[data-options]");
const note = document.querySelector("[data-option-note]");
const chosen = { keys: "on", notify: "off", sound: "off" };

// Notifications at once, at most; a crowd is one more.
const MOST = 3;

export function on(name) {
  try {
    return (localStorage.getItem(`hitl-${name}`) ?? chosen[name]) === "on";
  } catch {
    // A browser that keeps nothing: it counts until the page is left.
    return chosen[name] === "on";
  }
}

export function dress() {
  options.hidden = false;
  for (const box of options.querySelectorAll("[data-option]")) {
    const name = box.dataset.option;
    box.checked = on(name);
    box.addEventListener("change", async () => {
      if (name === "notify" && box.checked && !(await allowed())) {
        box.checked = false;
        note.textContent = "This browser does not allow notifications from this page.";
        return;
      }
      chosen[name] = box.checked ? "on" : "off";
      try {
        localStorage.setItem(`hitl-${name}`, chosen[name]);
      } catch {
        note.textContent = "This browser keeps nothing; it counts until the page is left.";
      }
      if (name === "sound" && box.checked) beep();
    });
  }
}

async function allowed() {
  if (!window.Notification) return false;
  return (await Notification.requestPermission()) === "granted";
}

// Tells of new requests, of which the links are given; not of one's own, which are for others. Every
// open page does; the tag makes one notification of theirs.
export function tell(links) {
  const theirs = links.filter((link) => !link.querySelector(".own"));
  if (!theirs.length) return;
  if (on("notify") && window.Notification?.permission === "granted" && !document.hasFocus()) {
    for (const link of theirs.slice(0, MOST)) {
      const [title, ...lines] = [...link.children].map((line) => line.textContent.trim());
      notify(title, lines.join("\n"), link.dataset.request, link.href);
    }
    const more = theirs.length - MOST;
    if (more > 0) notify(`${more} more requests wait`, "", "more", "/queue");
  }
  if (on("sound")) once(beep);
}

function notify(title, lines, tag, href) {
  const line = (text) => text.replace(/[ \t\n]+/g, " ");
  try {
    const notification = new Notification(line(title), { body: lines.split("\n").map(line).join("\n"), tag });
    notification.addEventListener("click", () => {
      window.focus();
      location.assign(href);
    });
  } catch {
    // Some browsers have it only for what they have installed.
  }
}

// Does something in one of the open pages.
function once(what) {
  if (!navigator.locks) return what();
  navigator.locks.request("hitl-sound", { ifAvailable: true }, async (lock) => {
    if (!lock) return;
    what();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  });
}

function beep() {
  const audio = new AudioContext();
  const [tone, volume] = [audio.createOscillator(), audio.createGain()];
  tone.frequency.value = 660;
  volume.gain.setValueAtTime(0.15, audio.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.4);
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.4);
  tone.addEventListener("ended", () => audio.close());
}
