"""What precision a device computes fast in."""

import torch


def has_fast_bf16(device_type: str) -> bool:
    """Say whether the device multiplies bfloat16 matrices in hardware; elsewhere emulation makes them slow."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
