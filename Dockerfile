# One image for everything: fanfare, fanfare-router and fanfare-delivery-worker, which are one program
# under three names.
#
#   docker build -t fanfare:0.1.0 .
#
# Both base images are arguments: a mirror, or another distribution's of the same glibc.
ARG BUILD_IMAGE=rust:1.95.0-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# dev: sooner built, for tests of the image itself.
ARG PROFILE=release
# What librdkafka is built with; the compilers come with the image.
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make pkg-config libssl-dev zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches stay with the builder, so that only what changed is compiled again. The result does not
# depend on them: Cargo.lock says what is built, and paths of the builder are mapped away.
ENV CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/target \
    RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/cache/cargo=cargo"
RUN --mount=type=cache,target=/cache \
    cargo build --profile ${PROFILE} --locked -p fanfare --bin fanfare \
 && mkdir -p /out/usr/bin /out/usr/lib /out/var/lib/fanfare \
 && strip --strip-debug -o /out/usr/bin/fanfare "/cache/target/$(echo ${PROFILE} | sed 's/^dev$/debug/')/fanfare" \
 && ln -s fanfare /out/usr/bin/fanfare-router \
 && ln -s fanfare /out/usr/bin/fanfare-delivery-worker \
 && ldd /out/usr/bin/fanfare | awk '/lib(z|ssl|crypto|stdc\+\+|gcc_s)\.so/ { print $3 }' \
  | xargs -I{} cp -L {} /out/usr/lib/ \
 && chown -R 65532:65532 /out/var/lib/fanfare

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fanfare" \
      org.opencontainers.image.description="Takes events in and delivers them as webhooks, and never loses one" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out /
# Nothing is written but the data directory of embedded mode, and nobody is root.
USER 65532:65532
WORKDIR /var/lib/fanfare
EXPOSE 7400 7401
ENTRYPOINT ["/usr/bin/fanfare"]
CMD ["--help"]
