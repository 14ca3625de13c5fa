# The appliance image: sluiced, sluice (also as ipvsadm) and the DPDK release they were built against.
#
#   docker build -t sluice .
#   docker run --rm --network host --cap-add NET_ADMIN --cap-add IPC_LOCK --cap-add SYS_NICE \
#     --device /dev/vfio --device /dev/net/tun -v /dev/hugepages:/dev/hugepages \
#     -v /etc/sluice:/etc/sluice:ro -v /run/sluice:/run/sluice sluice

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libdpdk-dev libclang-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# One layer for code and target directory: what is kept is two files.
RUN cargo build --release --locked --package sluice-control --bins \
    && install -D -t /out target/release/sluiced target/release/sluice

FROM debian:12-slim
# DPDK's libraries, and the drivers of every NIC that Debian builds.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        iproute2 librte-eal23 librte-ethdev23 librte-mbuf23 librte-mempool23 librte-meta-net \
        librte-mempool-ring23 librte-pdump23 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/sluiced /usr/sbin/sluiced
COPY --from=build /out/sluice /usr/bin/sluice
RUN ln -s ../bin/sluice /usr/sbin/ipvsadm
COPY configs/bare-metal.toml /usr/share/doc/sluice/
ENTRYPOINT ["/usr/sbin/sluiced"]
CMD ["--config", "/etc/sluice/sluice.toml"]
