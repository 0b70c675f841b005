"""Random numbers that depend on a key alone: not on batch, worker, process or device.

A key is an int64 hash of (seed, step, stream, place in its global batch, view name). The generator is a
counter hashed by two rounds of the 64-bit finalizer of MurmurHash3 (Appleby, public domain constants).
"""

import hashlib
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def make_key(*parts: int | str) -> int:
    """A 63-bit key for these parts; different parts give unrelated keys."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def derive_keys(keys: Int64[Tensor, "batch"], name: str) -> Int64[Tensor, "batch"]:
    """A new key from each key and a name: draws made from it tell nothing about draws made from its parent."""
    return _mix(keys ^ make_key("derive", name))


def split_keys(keys: Int64[Tensor, "batch"], count: int, purpose: str) -> Int64[Tensor, "batch count"]:
    """`count` new keys from each key; a longer row begins with the keys of a shorter one."""
    return _bits(keys, count, "split/" + purpose)


def uniform(keys: Int64[Tensor, "batch"], shape: tuple[int, ...], purpose: str) -> Float[Tensor, "batch ..."]:
    """Draws in [0, 1) of size (batch, *shape), fp32, on the device of the keys.

    Row i depends on `keys[i]`, `purpose` and the place in the flattened `shape` only: a longer shape begins
    with the draws of a shorter one.
    """
    bits = _bits(keys, math.prod(shape), purpose)
    return _shift(bits, 40).to(torch.float32).div_(2**24).reshape(len(keys), *shape)


def integers(
    keys: Int64[Tensor, "batch"], shape: tuple[int, ...], low: int, high: int, purpose: str
) -> Int64[Tensor, "batch ..."]:
    """Whole numbers from `low` to `high`, both included, of size (batch, *shape); see `uniform`.

    Raises ValueError if there is none. Of more than 2^24 numbers some would never be drawn.
    """
    if high < low:
        raise ValueError(f"there is no whole number from {low} to {high}")
    return (uniform(keys, shape, purpose).double() * (high - low + 1)).floor().to(torch.int64) + low


def normal(keys: Int64[Tensor, "batch"], shape: tuple[int, ...], purpose: str) -> Float[Tensor, "batch ..."]:
    """Standard normal draws of size (batch, *shape), fp32, by Box and Muller; equal up to rounding on any device."""
    radius = uniform(keys, shape, purpose + "/radius")
    angle = uniform(keys, shape, purpose + "/angle")
    return torch.log1p(-radius).mul_(-2.0).sqrt_() * angle.mul_(2.0 * math.pi).cos_()


def _bits(keys: Int64[Tensor, "batch"], count: int, purpose: str) -> Int64[Tensor, "batch count"]:
    counter = torch.arange(count, dtype=torch.int64, device=keys.device)
    stream = _mix(keys ^ make_key(purpose))
    return _mix(_mix(counter * _as_signed(0x9E3779B97F4A7C15) + stream[:, None]) + stream[:, None])


def _mix(x: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    x = (x ^ _shift(x, 33)).mul_(_as_signed(0xFF51AFD7ED558CCD))
    x = x.bitwise_xor_(_shift(x, 33)).mul_(_as_signed(0xC4CEB9FE1A85EC53))
    return x.bitwise_xor_(_shift(x, 33))


def _shift(x: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _as_signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
