"""What do the facts about messages and clocks mean, and what is to be done?

Pure functions, as in `findings.py`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from mpicluster.doctor.facts import FabricFacts, PairFacts, WorldFacts
from mpicluster.doctor.findings import Finding, Level, count, in_bytes, on_hosts

#: Ranks of one host that do not share a core answer in about a microsecond.
LOCAL_LATENCY_S_MAX: Final = 100e-6
#: One copy through shared memory gives several times this.
LOCAL_BYTES_PER_S_MIN: Final = 1e9
#: TCP needs 10 to 50 microseconds, fast fabrics 1 to 3; EFA lies in between.
TCP_LATENCY_S_MIN: Final = {"EFA": 30e-6}
TCP_LATENCY_S_MIN_OTHERS: Final = 8e-6
#: A network of 1 Gbit/s gives 0.12 GB/s.
REMOTE_BYTES_PER_S_MIN: Final = 0.2e9
#: Lines of logs and times of files of different hosts can be compared up to this.
CLOCK_OFFSET_S_MAX: Final = 0.1

#: Words of settings for TCP, and for what uses a fast fabric: transports of Open MPI (framework
#: btl) and UCX, providers of libfabric.
_TCP: Final = frozenset({"tcp", "sockets"})
_FAST: Final = frozenset({
    "uct", "ofi", "openib", "usnic", "portals4", "rc", "rc_v", "rc_x", "rc_mlx5", "dc", "dc_x",
    "ud", "ud_v", "ud_x", "ib", "all", "verbs", "psm2", "psm3", "opx", "cxi", "efa",
})  # fmt: skip
_PML_WITHOUT_BTL: Final = frozenset({"ucx", "cm"})


def describe_network(world: WorldFacts) -> list[Finding]:
    """Return what is to be said about messages and clocks."""
    return [*messages(world), *clocks(world)]


def tcp_setting(settings: Mapping[str, str]) -> str:
    """Return the variable that has the MPI library use TCP, "" if there is none.

    >>> tcp_setting({"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,self"})
    'OMPI_MCA_btl=tcp,self'
    >>> tcp_setting({"UCX_TLS": "rc,sm"})
    ''
    """
    pml = set(settings.get("OMPI_MCA_pml", "").split(","))
    for name, value in settings.items():
        words = set(re.split(r"[,;:]", value.lower()))
        ignored = name == "OMPI_MCA_btl" and pml & _PML_WITHOUT_BTL
        if words & _TCP and not words & _FAST and not ignored:
            return f"{name}={value}"
    return ""


def messages(world: WorldFacts) -> list[Finding]:
    """How fast do messages go, and do they use the fabric that is there?"""
    hosts = [facts.host for facts in world.ranks]
    local = [pair for pair in world.pairs if hosts[pair.ranks[0]] == hosts[pair.ranks[1]]]
    remote = [pair for pair in world.pairs if pair not in local]
    found = [_local(local)] if local else []
    fabrics = [fabric for fabric in world.ranks[0].fabrics if fabric.active]
    if remote:
        found.append(_remote(remote, world, fabrics))
    elif fabrics:
        text = f"{_named(fabrics)} is there; all ranks are on one host, so it was not measured."
        found.append(Finding("network", Level.GOOD, text))
    idle = {facts.host: fabric for facts in world.ranks for fabric in facts.fabrics}
    idle = {host: fabric for host, fabric in idle.items() if not _has_active(world, host)}
    if idle:
        devices = _named(list(dict.fromkeys(idle.values())))
        text = f"No port of {devices} on {on_hosts(idle)} is active: messages take another way."
        advice = "Ask the administrators; leave these hosts out until then."
        found.append(Finding("network", Level.NOTE, text, advice))
    return found


def _has_active(world: WorldFacts, host: str) -> bool:
    return any(
        fabric.active for facts in world.ranks if facts.host == host for fabric in facts.fabrics
    )


def _named(fabrics: Sequence[FabricFacts]) -> str:
    names: dict[str, list[str]] = {}
    for fabric in fabrics:
        names.setdefault(fabric.kind, []).append(fabric.device)
    return ", ".join(f"{kind} ({on_hosts(devices)})" for kind, devices in names.items())


def _speeds(pairs: Sequence[PairFacts]) -> str:
    """Return the slowest of what was measured; a task graph waits for that."""
    slowest = max(pair.latency_s for pair in pairs)
    least = min(pair.bytes_per_s for pair in pairs)
    of = f" (the slowest of {len(pairs)} pairs)" if len(pairs) > 1 else ""
    return f"{slowest * 1e6:.1f} µs and {in_bytes(least)}/s{of}"


def _local(pairs: Sequence[PairFacts]) -> Finding:
    text = f"Between ranks of one host: {_speeds(pairs)}."
    if max(pair.latency_s for pair in pairs) > LOCAL_LATENCY_S_MAX:
        return Finding(
            "latency", Level.NOTE, f"{text} They wait for each other to leave the core.",
            "Start fewer ranks on each host, do not bind several to one core, and see whether "
            "other programs run there.",
        )  # fmt: skip
    if min(pair.bytes_per_s for pair in pairs) < LOCAL_BYTES_PER_S_MIN:
        return Finding(
            "latency", Level.NOTE, f"{text} Shared memory should give several GB/s.",
            "Let the MPI library copy between processes: in a container permit process_vm_readv "
            "(--cap-add=SYS_PTRACE); see that /dev/shm has room.",
        )  # fmt: skip
    return Finding("latency", Level.GOOD, text)


def _remote(
    pairs: Sequence[PairFacts], world: WorldFacts, fabrics: Sequence[FabricFacts]
) -> Finding:
    text = f"Between hosts: {_speeds(pairs)}."
    settings = world.ranks[0].settings
    setting = tcp_setting(settings)
    tcp_from = min(
        (TCP_LATENCY_S_MIN.get(fabric.kind, TCP_LATENCY_S_MIN_OTHERS) for fabric in fabrics),
        default=TCP_LATENCY_S_MIN_OTHERS,
    )
    fastest = min(pair.latency_s for pair in pairs)
    if fabrics and (setting or fastest > tcp_from):
        reason = f"{setting} asks for TCP" if setting else "that is as slow as TCP"
        return Finding(
            "network", Level.NOTE,
            f"{text} Though the hosts have {_named(fabrics)}, {reason}.",
            (f"Unset {on_hosts(settings)}, or use" if settings else "Use")
            + " the MPI of your site, which is built for its fabric (load its module), and an "
            "mpi4py that was compiled for it.",
        )  # fmt: skip
    if min(pair.bytes_per_s for pair in pairs) < REMOTE_BYTES_PER_S_MIN:
        return Finding(
            "network", Level.NOTE, f"{text} That is little for moving values between workers.",
            "See whether the hosts have a faster network, and which one MPI was told to use "
            "(OMPI_MCA_btl_tcp_if_include, FI_TCP_IFACE, UCX_NET_DEVICES).",
        )  # fmt: skip
    return Finding("network", Level.GOOD, text if fabrics else f"{text} No fast fabric was found.")


def clocks(world: WorldFacts) -> list[Finding]:
    """Do the clocks of the hosts agree?"""
    if not world.clocks:
        return []
    late = [
        clock
        for clock in world.clocks
        if abs(clock.offset_s) - clock.uncertainty_s > CLOCK_OFFSET_S_MAX
    ]
    worst = max(world.clocks, key=lambda clock: abs(clock.offset_s))
    if late:
        text = (
            f"The clocks of {on_hosts(clock.host for clock in late)} and of {world.ranks[0].host} "
            f"differ by up to {abs(worst.offset_s):.1f} s. Lines of logs and times of files of "
            "these hosts cannot be compared; nothing else is harmed."
        )
        advice = "Tell the administrators; hosts should follow a time server (chronyc tracking)."
        return [Finding("clocks", Level.NOTE, text, advice)]
    agree = (abs(worst.offset_s) + worst.uncertainty_s) * 1e3
    hosts = count(len(world.clocks) + 1, "host")
    return [Finding("clocks", Level.GOOD, f"The clocks of {hosts} agree to {agree:.1f} ms.")]
