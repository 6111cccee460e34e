# Images of Understudy, one target each: detector, heartbeat, executor, autoscaler, cli.
#
#     docker compose build            # or: docker build --target detector -t understudy/detector .
#
# BUILDER compiles. An image that brings finished binaries in /prebuilt is taken at its word (scripts/local-images makes
# one where no registry can be reached).
ARG BUILDER=rust:1.95-slim-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
WORKDIR /source
COPY . .
RUN deploy/docker/build-roots /roots

# Nothing in them but the binary and its libraries. 65532 is nobody in particular ("nonroot" of other images).
FROM scratch AS detector
COPY --from=build /roots/detector/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/understudy-detector"]

FROM scratch AS heartbeat
COPY --from=build /roots/heartbeat/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/understudy-heartbeat"]

FROM scratch AS autoscaler
COPY --from=build /roots/autoscaler/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/understudy-autoscaler"]

FROM scratch AS cli
COPY --from=build /roots/cli/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/understudy"]

# Hooks want a shell. The binary carries its two capabilities itself, so that it needs no root; they count only as far
# as the container is given them (cap_add).
FROM ${BASE} AS executor
COPY --from=build /roots/executor/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/understudy-executor"]
