// Listens to what happens, once for all pages of this browser: browsers keep few connections to one
// server, and a stream takes one for as long as it is open. The page that holds the lock listens and
// tells the others; when it closes, or falls silent, another takes over.

const NAME = "hitl-live";

// Milliseconds until a stream that broke is tried again.
const AGAIN = 1000;

// Milliseconds of silence after which nobody listens any more: the server says something every four
// seconds.
const SILENCE = 10000;

// Calls `hello` when events begin to come, `change` with a request's id for each (`beforehand` for one
// that is about what was approved beforehand), `away` when they stop coming; whoever says hello again may have missed some.
export function follow(told) {
  let last = Date.now();
  let silent = false;
  const tell = (kind, id) => {
    last = Date.now();
    if (silent && kind !== "away") {
      // What was told meanwhile went unheard.
      silent = false;
      if (kind !== "hello") told.hello();
    }
    if (kind !== "beat") told[kind](id);
  };
  const lead = joined(tell);
  setInterval(() => {
    if (Date.now() - last < SILENCE) return;
    last = Date.now();
    silent = true;
    told.away();
    // One that somebody looks at does not wait for one that sleeps.
    if (document.visibilityState === "visible") lead();
  }, 1000);
}

// Joins the pages of this browser. Gives what takes the lead from a page that is silent.
function joined(tell) {
  if (!navigator.locks || !window.BroadcastChannel) {
    let stop = listen(tell);
    return () => {
      stop();
      stop = listen(tell);
    };
  }
  const channel = new BroadcastChannel(NAME);
  const self = crypto.randomUUID();
  let connected = false;
  let stop;
  channel.addEventListener("message", ({ data }) => {
    if (data.kind === "ask") {
      if (stop && connected) channel.postMessage({ kind: "hello", to: data.from });
    } else if (!stop && (!data.to || data.to === self)) {
      tell(data.kind, data.id);
    }
  });
  channel.postMessage({ kind: "ask", from: self });
  const leading = () =>
    new Promise(() => {
      stop?.();
      stop = listen((kind, id) => {
        connected = kind !== "away";
        channel.postMessage({ kind, id });
        tell(kind, id);
      });
    });
  // Rejected when another page has taken the lead: then this one waits in line again.
  const queue = (options) =>
    navigator.locks.request(NAME, options, leading).catch(() => {
      stop?.();
      stop = undefined;
      connected = false;
      queue({});
    });
  queue({});
  return () => queue({ steal: true });
}

// Listens until it is stopped.
function listen(tell) {
  let events;
  let timer;
  const connect = () => {
    events = new EventSource("/live");
    events.addEventListener("hello", () => tell("hello"));
    events.addEventListener("beat", () => tell("beat"));
    events.addEventListener("change", (event) => tell("change", event.data));
    events.addEventListener("beforehand", (event) => tell("beforehand", event.data));
    events.addEventListener("error", () => {
      events.close();
      tell("away");
      timer = setTimeout(connect, AGAIN);
    }, { once: true });
  };
  connect();
  return () => {
    events.close();
    clearTimeout(timer);
  };
}
