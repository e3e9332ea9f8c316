// Starts the real services, the real gateway and a real browser for one file of tests, and stops
// them. Everything it needs is named by the environment: HITL_BIN, ENVOY_BIN, CHROMIUM_BIN, OUT.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer, connect } from "node:net";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { HITL_BIN, ENVOY_BIN, CHROMIUM_BIN, ENVOY_CONFIG, OUT } = process.env;

/// Longest that anything may take.
const PATIENCE = 30_000;

/// Reviewers, and the tokens they sign in with.
export const token = (name) => `${name}-token`;
const REVIEWERS = ["dana", "lee", "alice"];

/// Waits until something is so.
export async function until(what, is, within = PATIENCE) {
  const end = Date.now() + within;
  for (;;) {
    const found = await is();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${within} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/// A page in which axe finds nothing, targets large enough to touch included, and that is no wider than its
/// window.
export async function faultless(page, what) {
  await page.evaluate(axe);
  const rules = { "target-size": { enabled: true } };
  const { violations } = await page.evaluate((rules) => globalThis.axe.run({ rules }), rules);
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
  assert.deepEqual(found, [], what);
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wider <= 0, `${what} is ${wider} px wider than the window`);
}

export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(socket.destroy() && true));
    socket.once("error", () => resolve(false));
  });
}

export class Lab {
  #children = new Set();

  /// A lab that waits for nothing yet. Texts are settings of the gate; an object says more: `rules` of
  /// the gate, what a `provider` is started with, and settings of the page (`ui`) at another `home`.
  static async start(...given) {
    const lab = new Lab();
    const settings = given.filter((setting) => typeof setting === "string");
    const { home, provider, rules, ui: more = [] } =
      given.find((setting) => typeof setting === "object") ?? {};
    mkdirSync(OUT, { recursive: true });
    lab.folder = mkdtempSync(join(OUT, "lab-"));
    const file = (name) => join(lab.folder, name);
    if (rules) {
      writeFileSync(file("rules.yaml"), rules);
      settings.push(`--rules=${file("rules.yaml")}`);
    }
    if (provider) {
      lab.provider = await lab.#startProvider(provider);
      settings.push(`--oidc-issuer=${lab.provider}`, "--oidc-audience=hitl-ui");
      settings.push("--oidc-reviewer-groups=dba", "--oidc-viewer-groups=support");
      writeFileSync(file("secret"), "not a secret: 100%\n");
      more.push(`--oidc-issuer=${lab.provider}`, `--oidc-client-secret-file=${file("secret")}`);
    }
    const people = REVIEWERS.map((name) => {
      const digest = createHash("sha256").update(token(name)).digest("hex");
      return `- {name: ${name}, groups: [dba], token_sha256: ${digest}}\n`;
    });
    writeFileSync(file("reviewers.yaml"), `reviewers:\n${people.join("")}`);
    const [grpc, admin, gateway] = [await freePort(), await freePort(), await freePort()];
    lab.admin = `http://127.0.0.1:${admin}`;
    lab.gateway = `http://127.0.0.1:${gateway}`;
    lab.gateCommand = [
      join(HITL_BIN, "hitl-extauth"),
      [
        `--grpc-listen=127.0.0.1:${grpc}`,
        `--admin-listen=127.0.0.1:${admin}`,
        `--database=${file("gate.db")}`,
        `--receipt-key=${file("key.pem")}`,
        `--reviewers=${file("reviewers.yaml")}`,
        "--denial-cooldown=0",
        ...settings,
      ],
    ];
    await lab.startGate();
    const tools = await lab.#service("mcp-ops-tools", [
      "--listen=127.0.0.1:0",
      `--receipt-keys=${lab.admin}/.well-known/jwks.json`,
      `--database=${file("orders.db")}`,
    ]);
    lab.tools = `http://${tools.address}`;
    const ui = await lab.#service("hitl-ui", [
      more.find((setting) => setting.startsWith("--listen")) ?? "--listen=127.0.0.1:0",
      `--gate=${lab.admin}`,
      `--ops-tools=${lab.tools}`,
      `--mcp=mcp-ops-tools=${lab.tools}/privileged/mcp`,
      ...more.filter((setting) => !setting.startsWith("--listen")),
    ]);
    lab.url = home ?? `http://${ui.address}`;
    const config = readFileSync(ENVOY_CONFIG, "utf8")
      .replaceAll("{{LISTEN}}", gateway)
      .replaceAll("{{TOOLS}}", tools.address.split(":")[1])
      .replaceAll("{{GATE}}", grpc)
      // What a caller sends may be as long as the gate takes it.
      .replace(/max_request_bytes: \d+/, "max_request_bytes: 1048576");
    writeFileSync(file("envoy.yaml"), config);
    const quiet = ["--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id"];
    lab.#spawn(ENVOY_BIN, [...quiet, "-c", file("envoy.yaml")], "inherit");
    await until("the gateway listens", () => listens(gateway));
    lab.browser = await chromium.launch({
      executablePath: CHROMIUM_BIN,
      args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    });
    return lab;
  }

  #spawn(program, args, stderr) {
    // Nothing of this machine's settings.
    const ours = /^(HITL_|OPS_TOOLS_|OTEL_|LOG_|RUST_LOG|PORT|GRPC_PORT|HTTP_PORT|PARK_)/;
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
    const child = spawn(program, args, { env, stdio: ["ignore", "ignore", stderr] });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  /// Starts one of our services; gives what it says when it listens.
  async #service(name, args, keep = () => {}) {
    const program = join(HITL_BIN, name);
    const child = this.#spawn(program, [...args, "--log-format=json"], "pipe");
    keep(child);
    const lines = createInterface(child.stderr);
    return new Promise((resolve, reject) => {
      const last = [];
      lines.on("line", (line) => {
        last.push(line);
        const said = JSON.parse(line);
        if (said.address ?? said.admin) resolve(said);
      });
      child.once("exit", () => reject(new Error(`${name} ended:\n${last.slice(-5).join("\n")}`)));
    });
  }

  async #startProvider(args) {
    const program = new URL("provider.mjs", import.meta.url).pathname;
    const child = spawn(process.execPath, [program, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    this.providing = child;
    const lines = createInterface(child.stdout);
    return new Promise((resolve, reject) => {
      lines.once("line", resolve);
      child.once("exit", () => reject(new Error("the provider has ended")));
    });
  }

  async stopProvider() {
    const gone = new Promise((resolve) => this.providing.once("exit", resolve));
    this.providing.kill("SIGKILL");
    await gone;
  }

  /// A call that nobody waits for any more.
  forget(call) {
    call.catch(() => {});
  }

  async startGate() {
    const [, args] = this.gateCommand;
    await this.#service("hitl-extauth", args, (child) => (this.gate = child));
  }

  async killGate() {
    const gone = new Promise((resolve) => this.gate.once("exit", resolve));
    this.gate.kill("SIGKILL");
    await gone;
  }

  /// A call through the gateway, as somebody; gives the tool's result once there is one.
  async call(user, args, tool = "run_migration") {
    const request = {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        "user-agent": "dba-assistant",
        "x-user-id": user,
      },
      body: JSON.stringify({
        jsonrpc: "2.0",
        id: 1,
        method: "tools/call",
        params: { name: tool, arguments: args },
      }),
    };
    const answer = await fetch(`${this.gateway}/privileged/mcp`, request).catch((error) => {
      // One that is still held when the tests are over is nobody's fault.
      if (!this.stopping) throw error;
    });
    if (!answer) return { status: 0 };
    const text = await answer.text();
    if (!answer.ok) return { status: answer.status, text };
    const { result, error } = JSON.parse(text);
    return { status: answer.status, result, error, text: result?.content?.[0]?.text };
  }

  /// The gate's admin API, as a reviewer.
  async ask(path, as = "dana") {
    const answer = await fetch(this.admin + path, {
      headers: { authorization: `Bearer ${token(as)}` },
    });
    return answer.json();
  }

  /// The oldest request that waits, once so many do.
  async waiting(number = 1) {
    const found = async () => {
      const { pending } = await this.ask("/pending");
      return pending.length === number && pending.every((request) => request.waiting) && pending;
    };
    return (await until(`${number} waiting`, found))[0];
  }

  /// A browser of somebody's own. What it complains about is kept in `complaints`.
  async visitor({ elsewhere, ...options } = {}) {
    const context = await this.browser.newContext({ baseURL: this.url, ...options });
    context.setDefaultTimeout(PATIENCE);
    const complaints = [];
    const page = await context.newPage();
    context.on("page", (other) => watch(other, complaints));
    watch(page, complaints);
    context.on("request", (request) => {
      const url = request.url();
      const from = elsewhere ? request.headers().referer ?? "" : "";
      // What the provider's own pages ask for is the provider's business.
      const theirs = elsewhere && (url.startsWith(elsewhere) || from.startsWith(elsewhere));
      if (!url.startsWith(this.url) && !theirs) complaints.push(`asks elsewhere: ${url}`);
    });
    return { context, page, complaints };
  }

  /// The same, signed in.
  async signedIn(name, options = {}) {
    const visitor = await this.visitor(options);
    await signIn(visitor.page, name);
    return visitor;
  }

  async stop() {
    this.stopping = true;
    await this.browser?.close();
    for (const child of this.#children) child.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/// What may be answered so: what is not there on purpose, and a gate that is away.
const EXPECTED = /\/(c|callback|nothing|live|login|queue|history|requests)(\/|\?|$)/;

/// Keeps what a page's browser complains about.
export function complain(page, complaints) {
  watch(page, complaints);
}

function watch(page, complaints) {
  page.on("response", (response) => {
    const { pathname } = new URL(response.url());
    if (response.status() >= 400 && !EXPECTED.test(pathname)) {
      complaints.push(`${response.status()}: ${response.url()}`);
    }
  });
  page.on("pageerror", (error) => complaints.push(`script: ${error}`));
  page.on("dialog", (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("console", (message) => {
    // The browser reports what the policy has stopped, and what is not there.
    const text = message.text();
    if (message.type() === "error" && !/Failed to load resource|ERR_/.test(text)) {
      complaints.push(`console: ${text}`);
    }
  });
}

export async function signIn(page, name) {
  await page.goto("/login");
  await page.getByLabel("Token").fill(token(name));
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/queue");
}

/// A picture of what somebody sees, for whoever looks at the run.
export async function picture(page, name) {
  await page.screenshot({ path: join(OUT, `${name}.png`) });
}
