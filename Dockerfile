# Images of the services: one static binary and the certificates it trusts, nobody's shell, no root.
#
#   docker build --target service --build-arg SERVICE=hitl-extauth -t hitl-extauth .
#
# `cargo xtask images` builds all of them; with --host-build it compiles outside and uses the last stage
# alone, which takes nothing from anywhere.

# A Rust with the musl target and a C compiler for it: Alpine's has both. From a mirror, or another one,
# as you like.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-alpine

# What decides about dependencies: manifests, and a stub for every target. As long as these are the
# same, the layer with the compiled dependencies is.
FROM ${BUILD_IMAGE} AS manifests
WORKDIR /workspace
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -path '*/src/lib.rs' ! -path '*/src/main.rs' ! -path './.cargo/*' -delete \
 && find . -path '*/src/lib.rs' -exec sh -c ': > "$1"' - {} \; \
 && find . -path '*/src/main.rs' -exec sh -c 'echo "fn main() { }" > "$1"' - {} \; \
 && find . -type d -empty -delete

FROM ${BUILD_IMAGE} AS build
WORKDIR /workspace
ENV CARGO_TERM_COLOR=never
COPY --from=manifests /workspace .
RUN cargo build --release --locked --target "$(uname -m)-unknown-linux-musl" \
    -p dba-assistant -p hitl-extauth -p hitl-ui -p mcp-ops-tools -p scripted-model
COPY . .
# Newer than the stubs, or cargo takes those for what was built.
RUN find . -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --target "$(uname -m)-unknown-linux-musl" \
    -p dba-assistant -p hitl-extauth -p hitl-ui -p mcp-ops-tools -p scripted-model \
 && mkdir /built && find target/*/release -maxdepth 1 -type f -perm -u+x -exec cp {} /built/ \;

FROM scratch AS service
ARG SERVICE
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /built/${SERVICE} /usr/local/bin/service
# In a container everything else is elsewhere, so services listen to all of it.
ENV HITL_GRPC_LISTEN=0.0.0.0:9001 HITL_ADMIN_LISTEN=0.0.0.0:8081 HITL_UI_LISTEN=0.0.0.0:8090 \
    OPS_TOOLS_LISTEN=0.0.0.0:8080 DBA_ASSISTANT_LISTEN=0.0.0.0:8080 SCRIPTED_MODEL_LISTEN=0.0.0.0:8082
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/service"]
