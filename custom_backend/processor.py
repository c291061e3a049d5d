"""OpenBLAS chooses its matrix kernels by a list of processors, and what is newer gets those of 2013.

NumPy's OpenBLAS (0.3.31) does not know AMD's family 26 (Zen 5) and multiplies there with AVX2, at about two
thirds of the speed of its AVX-512 kernels. It reads `OPENBLAS_CORETYPE` once, when NumPy is imported.
"""

import os
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def advise_openblas() -> None:
    """Name the AVX-512 kernels to OpenBLAS where it would not choose them, unless the user has chosen."""
    if "numpy" in sys.modules or not CPUINFO.exists():
        return
    first, _, _ = CPUINFO.read_text().partition("\n\n")
    facts = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in first.splitlines())}
    unknown = facts.get("vendor_id") == "AuthenticAMD" and int(facts["cpu family"]) >= 26
    if unknown and {"avx512f", "avx512bw", "avx512vl"} <= set(facts["flags"].split()):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
