"""The system calls that shut a student's process in: namespaces, limits, capabilities and a filter of
system calls."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
import time

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_libc = ctypes.CDLL(None, use_errno=True)

# Calls that no exercise needs and that reach beyond the limits: other processes, namespaces, mounts, keys,
# kernel
# interfaces, and memory that no limit counts.
_REFUSED = {
    "x86_64": (
        101, 310, 311, 272, 308, 165, 166, 155, 161, 250, 248, 249, 321, 298, 323, 319, 447, 29, 30, 31, 67,
        425, 426, 427, 246, 320, 175, 313, 176, 428, 429, 430, 431, 432, 433, 442, 169, 304, 303, 68, 240,
        434, 438,
    ),
    "aarch64": (
        117, 270, 271, 97, 268, 40, 39, 41, 51, 219, 217, 218, 280, 241, 282, 279, 447, 194, 195, 196, 197,
        425, 426, 427, 104, 294, 105, 273, 106, 428, 429, 430, 431, 432, 433, 442, 142, 265, 264, 186, 180,
        434, 438,
    ),
}  # fmt: skip
_ARCHITECTURE = {
    "x86_64": (0xC000003E, 56, 435, 203),
    "aarch64": (0xC00000B7, 220, 435, 122),
}  # audit id, clone, clone3, sched_setaffinity


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Moves this process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mounts a file system."""
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()),
        f"mount {target}",
    )


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """Sets an attribute of this process."""
    arguments = (ctypes.c_ulong(first), ctypes.c_ulong(second), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _check(_libc.prctl(option, *arguments), f"prctl {option}")


def map_user(uid: int, gid: int) -> None:
    """Maps the ids outside to 1000 within the new user namespace."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def drop_capabilities() -> None:
    """Gives up every capability for good."""
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break
    _libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0))
    _check(_libc.capset(header, ctypes.create_string_buffer(24)), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def filter_system_calls() -> bool:
    """Refuses the calls in `_REFUSED` (EPERM) from now on; False on a processor it knows no numbers for."""
    machine = platform.machine()
    if machine not in _REFUSED:
        return False
    audit, clone, clone3, set_affinity = _ARCHITECTURE[machine]
    code: list[bytes] = []

    def add(op: int, k: int, jump_true: int = 0, jump_false: int = 0) -> None:
        code.append(struct.pack("<HBBI", op, jump_true, jump_false, k))

    load, equal, greater_equal, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, absent, allow, kill = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x7FFF0000, 0x80000000
    add(load, 4)
    add(equal, audit, 1, 0)
    add(give, kill)
    add(load, 0)
    add(greater_equal, 0x40000000, 0, 1)  # the x32 numbering of the same calls
    add(give, refuse)
    add(equal, clone3, 0, 1)
    add(give, absent)  # the C library then falls back to clone, whose flags can be looked at
    add(equal, set_affinity, 0, 1)
    add(give, 0x00050000)  # done, it seems; but the processors are the judge's to choose
    for number in _REFUSED[machine]:
        add(equal, number, 0, 1)
        add(give, refuse)
    add(equal, clone, 0, 3)
    add(load, 16)
    add(any_bit, 0x7E020000, 0, 1)  # CLONE_NEW*
    add(give, refuse)
    add(give, allow)
    program = ctypes.create_string_buffer(b"".join(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(header))
    return True


def own_address_space() -> int:
    """Bytes of this process's address space; 0 on a system that has no /proc to tell."""
    if not sys.platform.startswith("linux"):
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def set_limits(memory: int, processes: int, file_size: int, cpu_seconds: int, address_space: int) -> None:
    """Limits this process and its children; outside of Linux, as far as the system has such limits.

    Args:
        memory: bytes of address space each process may add to the `address_space` that it has.
        processes: number of processes and threads of this user in this namespace.
        file_size: bytes of one file.
        cpu_seconds: processor time of one process.
        address_space: bytes that the warm process already has; 0 for no limit of memory.
    """
    for name, value in (
        ("AS", address_space + memory),
        ("NPROC", processes),
        ("FSIZE", file_size),
        ("CPU", cpu_seconds),
        ("CORE", 0),
        ("NOFILE", 256),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
    ):
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None or (name == "AS" and not address_space):
            continue
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            if sys.platform.startswith("linux"):
                raise


def process_table() -> dict[int, tuple[int, int]]:
    """Parent and resident bytes of each process that /proc shows, by its number."""
    if not sys.platform.startswith("linux"):
        return {}
    page = resource.getpagesize()
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/statm") as statm:
                    fields = stat.read().rpartition(")")[2].split()
                    table[int(name)] = (int(fields[1]), int(statm.read().split()[1]) * page)
            except (OSError, ValueError, IndexError):
                continue
    return table


def fork_limit_holds() -> bool:
    """Whether RLIMIT_NPROC stops this process from forking; it is for a process that is thrown away
    afterwards."""
    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
    children = []
    try:
        for _ in range(8):
            child = os.fork()
            if child == 0:
                time.sleep(5)
                os._exit(0)
            children.append(child)
        return False
    except OSError:
        return True
    finally:
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)
