// An OpenID Connect provider as people have one: the certified `oidc-provider`, with three people in it,
// short-lived tokens and keys that change when asked. Prints its address when it listens.
//
// node provider.mjs HOME: HOME is the queue's address.

import { generateKeyPairSync, randomBytes, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const home = process.argv[2];
const lifetime = Number(process.argv[3] ?? 300);

/// Any password will do.
const PEOPLE = {
  ana: { email: "ana@example.com", email_verified: true, groups: ["dba", "staff"] },
  bo: { email: "bo@example.com", email_verified: true, groups: ["dba"] },
  vic: { email: "vic@example.com", email_verified: true, groups: ["support"] },
  eve: { email: "eve@example.com", email_verified: true, groups: ["web"] },
};

function key() {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "ES256" };
}

// Kept across a change of keys, so that whoever is signed in stays so.
const rows = new Map();
class Memory {
  constructor(kind) {
    this.kind = kind;
  }
  #name = (id) => `${this.kind}:${id}`;
  async upsert(id, payload, seconds) {
    rows.set(this.#name(id), { payload, until: seconds ? Date.now() + seconds * 1000 : Infinity });
    if (payload.uid) rows.set(`uid:${payload.uid}`, { payload: id, until: Infinity });
  }
  async find(id) {
    const row = rows.get(this.#name(id));
    return row && row.until > Date.now() ? row.payload : undefined;
  }
  async findByUid(uid) {
    return this.find(rows.get(`uid:${uid}`)?.payload);
  }
  async consume(id) {
    rows.get(this.#name(id)).payload.consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    rows.delete(this.#name(id));
  }
  async revokeByGrantId(grant) {
    for (const [name, { payload }] of rows) if (payload?.grantId === grant) rows.delete(name);
  }
}

let keys = [key()];
const cookies = [randomBytes(32).toString("hex")];

function provider(issuer) {
  const made = new Provider(issuer, {
    adapter: Memory,
    jwks: { keys },
    cookies: { keys: cookies },
    clients: [
      {
        client_id: "hitl-ui",
        client_secret: "not a secret: 100%",
        redirect_uris: [`${home}/callback`],
        post_logout_redirect_uris: [`${home}/login`],
        grant_types: ["authorization_code", "refresh_token"],
        id_token_signed_response_alg: "ES256",
      },
    ],
    pkce: { required: () => true },
    scopes: ["openid", "offline_access", "profile", "email", "groups"],
    claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
    conformIdTokenClaims: false,
    enabledJWA: { idTokenSigningAlgValues: ["ES256"] },
    ttl: { AccessToken: lifetime, IdToken: lifetime, RefreshToken: 3600, Session: 3600, Grant: 3600 },
    // Some providers give a new one each time, some let the first one go on.
    rotateRefreshToken: ({ oidc }) => oidc.entities.RefreshToken.accountId !== "bo",
    issueRefreshToken: async (_, client) => client.grantTypeAllowed("refresh_token"),
    findAccount: (_, id) =>
      PEOPLE[id] && { accountId: id, claims: async () => ({ sub: id, ...PEOPLE[id] }) },
    // Nobody is asked whether the queue may know who they are.
    loadExistingGrant: async ({ oidc }) => {
      const { client, session } = oidc;
      const known = session.grantIdFor(client.clientId);
      const grant =
        (known && (await oidc.provider.Grant.find(known))) ||
        new oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope("openid offline_access profile email groups");
      await grant.save();
      return grant;
    },
    features: {
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: true },
    },
  });
  for (const event of ["server_error", "authorization.error", "grant.error", "end_session.error"]) {
    made.on(event, (_, error) => console.error(event, error.message, error.error_description ?? ""));
  }
  return made.callback();
}

let handle;
let issuer;
const server = createServer((request, response) => {
  if (request.method === "POST" && request.url === "/test/rotate") {
    keys = [key()];
    handle = provider(issuer);
    response.end();
    return;
  }
  handle(request, response);
});
server.listen(0, "127.0.0.1", () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  handle = provider(issuer);
  console.log(issuer);
});
