"""How much memory this process may use."""

import os
from collections.abc import Iterator
from pathlib import Path

from experiment.errors import UserError

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def memory_limit() -> int:
    """Bytes: what the machine has, its container (cgroup v1 or v2) or ``ulimit -v`` allows, the least."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits()]
    try:
        import resource  # not on Windows

        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    except ImportError:
        pass
    return min(limit for limit in limits if limit > 0)  # no limit is -1


def require_memory(needed: int, what: str) -> None:
    """Refuse what ``needed`` bytes would not hold.

    Raises:
        UserError: with both numbers and what to do.
    """
    limit = memory_limit()
    if needed > limit:
        raise UserError(
            f"decoding {what} takes {needed / 2**30:.1f} GiB of memory, this machine or container allows "
            f"{limit / 2**30:.1f}: make them smaller, e.g. data.image_size=64"
        )


def _cgroup_limits() -> Iterator[int]:
    """The limit of each group that this process is in, and of each that contains it."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
        group = Path(path.lstrip("/"))
        # inside a container the path may be that of the host: whatever of it is there counts
        for place in (group, *group.parents):
            try:
                text = (base / place / name).read_text().strip()
            except OSError:
                continue
            if text.isdigit():
                yield int(text)
