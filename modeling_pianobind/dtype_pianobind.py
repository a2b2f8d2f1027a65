"""Number format of the towers: float32, or bfloat16 where the processor multiplies it natively."""

import torch

DTYPES = ("auto", "float32", "bfloat16")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 natively; otherwise bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def uses_bfloat16(dtype: str, device: torch.device | str) -> bool:
    """Whether products are computed in bfloat16.

    Args:
        dtype (`str`): one of `DTYPES`; "auto" is bfloat16 where `device` multiplies it natively.
        device (`torch.device` or `str`).
    Raises:
        ValueError: another `dtype`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"the dtype is {dtype!r}; give {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")
    return dtype == "bfloat16" or (dtype == "auto" and multiplies_bfloat16(torch.device(device)))


def computing(dtype: str, device: torch.device | str) -> torch.autocast:
    """A context in which the towers compute in `dtype`; see `uses_bfloat16`."""
    device = torch.device(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(dtype, device))


__all__ = ["DTYPES", "computing", "multiplies_bfloat16", "uses_bfloat16"]
