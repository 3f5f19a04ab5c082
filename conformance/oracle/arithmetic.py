"""The numbers behind the error bound: formats, hardware accuracies, and algorithms' freedoms.

Nothing is tuned: each constant is a property of a format, an accuracy that a vendor documents, or a
count of operations. Errors are relative unless stated otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Unit roundoff when rounding to nearest: half the distance from 1 to the next number (IEEE 754).
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
# The smallest positive numbers, normal and subnormal.
SMALLEST_NORMAL = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126}
SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149}

# Matrix units add products to a float32 accumulator after aligning a group of products to the
# largest, and truncate instead of rounding: Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior
# of NVIDIA tensor cores", PeerJ Computer Science 7:e330 (2021), https://doi.org/10.7717/peerj-cs.330;
# for AMD: Li, Li, Fang, Ayaz, Gopalakrishnan, "FTTN: Feature-Targeted Testing for Numerical
# Properties of NVIDIA & AMD Matrix Accelerators" (2024), https://arxiv.org/abs/2403.00232.
UNIT_MATRIX = 2.0**-23
# The smallest group of products. Each group adds one more truncated term, the accumulator.
SMALLEST_GROUP = 4

# exp2 in float32. NVIDIA ex2.approx.ftz.f32: 2**-22
# (https://docs.nvidia.com/cuda/parallel-thread-execution/, ex2); AMD V_EXP_F32: 1 ULP
# ("AMD Instinct MI300" instruction set architecture, V_EXP_F32).
EXP = 2.0**-22
# log2 in float32, absolute error in units of the result. NVIDIA lg2.approx.ftz.f32: 2**-22; AMD
# V_LOG_F32: 1 ULP (ULPs of the result count with the sum it is added to).
LOG = 2.0**-22
# Division in float32: NVIDIA div.full.f32 2 ULP, AMD V_RCP_F32 1 ULP plus a multiplication.
DIVISION = 2.0**-22
# tanh in float32, absolute error. Computed as (exp(x) - exp(-x)) / (exp(x) + exp(-x)): two
# exponentials in numerator and denominator, each with error EXP and two roundings of an argument
# (at most 9 where tanh is not yet 1 in float32), and a division.
TANH = 2 * (EXP + 2 * 9 * UNIT["float32"]) + DIVISION

# Roundings in float32 between the dot product and the base-2 logit: the scale and its product,
# log2(e) and its product, the scale of an fp8 key and its product, entering and leaving a soft cap.
LOGIT_ROUNDINGS = 8
# Roundings of logit and maximum in an exponent: their difference, log2(e) and its product, for a
# key's exponential and for later rescalings (whose differences add up to at most the maximum minus
# the logit); a part's log-sum-exp, and its difference.
EXPONENT_ROUNDINGS = 4
# Roundings of an ALiBi term: slope, product, root, sum. Kernels may count from any position.
ALIBI_ROUNDINGS = 4

# The smallest and largest tiles of keys, in tokens. Matrix units multiply at least 16 keys; the
# largest tile is a whole partition or chunk in one step.
TILES = (16, 512)
# The fewest tokens in a part of a sequence whose result is merged with others one by one.
SMALLEST_PART = 128

# How often vLLM's HIP decode rounds a partial output to the query's dtype, in units of half a last
# place. Each wave's output is rounded, and that of a partition stored, once for both where the
# waves divide a head (mfma16); else (mfma4) the outputs of four waves are added one by one, the
# first to 0: in float16 to nearest, in bfloat16 by cutting off, which is two units each.
# https://github.com/vllm-project/vllm/blob/v0.19.0/csrc/rocm/attention.cu (from_floatx4, addx4)
HIP_PARTIAL_ROUNDINGS = {
    "paged_attention_ll4mi_QKV_mfma16_kernel": {"float16": 1, "bfloat16": 1},
    "paged_attention_ll4mi_QKV_mfma4_kernel": {"float16": 1 + 3, "bfloat16": 1 + 3 * 2},
}

# The fp8 encodings with three bits of mantissa: the unit roundoff, the smallest positive numbers.
UNIT_EIGHT_BIT = 2.0**-4
SMALLEST_EIGHT_BIT = {"fp8_e4m3fn": 2.0**-9, "fp8_e4m3fnuz": 2.0**-10}
# aiter's decodes over fp8 caches multiply in fp8: queries and probabilities are scaled so that a
# row's largest magnitude is the encoding's largest number, of which FNUZ's is the smaller, and
# rounded. (v_mul_f32 by 0x43700000, v_cvt_pk_fp8_f32.) https://github.com/ROCm/aiter/tree/main/hsa
EIGHT_BIT_PEAK = 240.0
EIGHT_BIT_KERNEL = "_pertokenFp8_"
# Its latent decodes of queries in fp8 round probabilities as they are, of which the largest is 1.
# The queries are vLLM's, rounded with these largest numbers, for which it takes FNUZ's 240.
EIGHT_BIT_LATENT_KERNEL = "mla_a8w8_"
QUERY_PEAK = {"fp8_e4m3fn": 448.0, "fp8_e4m3fnuz": 224.0}
# Those in float16 cut probabilities and output off, which moves a number by up to a whole unit in
# its last place (v_cvt_pkrtz_f16_f32).
CUTTING_KERNEL = "pa_fp16_"


@dataclass(frozen=True)
class OctaveDecode:
    """How a decode of ROCM_OCTAVE's multiplies the entries of a codebook.

    ``query``: how far it rounds a rotated query, as a part of its largest magnitude. ``added``:
    what it adds to each entry of a value, and takes from the sum afterwards.
    """

    query: float = 0.0
    added: float = 0.0


# Queries are two bytes, of which the second is cut to 127 of 256 parts of the first's step, or one
# byte, to nearest. Entries of values are bytes without a sign.
# https://github.com/vllm-project/vllm/tree/v0.33.0/csrc/attention (octave_decode_mfma_cdna.cu,
# octave_attn.cu)
OCTAVE_DECODE = {
    "octave_mfma::decode_mfma": OctaveDecode(query=1 / 127 / 256, added=128),
    "octave::decode_kernel": OctaveDecode(query=1 / 127 / 2),
}


@dataclass(frozen=True)
class Arithmetic:
    """What an algorithm may do beyond the model of ``conformance.oracle.bound``.

    ``rounds_dequantised``: it rounds scaled fp8 keys and values to the compute dtype.
    ``partial_roundings``: how often it rounds a partial output to the output's dtype before the
    last merge (1 for the partitions of vLLM's HIP kernel, whose partial outputs have the query's
    dtype; the number of merges for context chunks merged one by one).
    ``flushes_subnormals``: its matrix unit reads float16 subnormals as zero, as gfx90a's does
    (https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html).
    ``cuts_off``: it rounds probabilities and output towards zero.
    ``eight_bit``: the fp8 encoding that it rounds scaled queries and probabilities to, or "".
    ``eight_bit_weights``: the one that it rounds probabilities to, which are not scaled.
    ``octave``: how its decode over a cache of ROCM_OCTAVE's multiplies.
    """

    rounds_dequantised: bool = True
    partial_roundings: int = 0
    flushes_subnormals: bool = False
    eight_bit: str = ""
    eight_bit_weights: str = ""
    cuts_off: bool = False
    octave: OctaveDecode = OctaveDecode()

    @property
    def coarser(self) -> int:
        """How many times the error of rounding to nearest a rounding of its may have."""
        return 2 if self.cuts_off else 1


def gamma(count: float, unit: float) -> float:
    """The relative error of ``count`` successive roundings: n u / (1 - n u).

    N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition (2002), lemma 3.1.
    """
    product = count * unit
    return product / (1 - product)


def dot_error(length: int) -> float:
    """The error of a matrix unit's dot product of ``length``, relative to the sum of |a| |b|."""
    terms = length + -(-length // SMALLEST_GROUP) + 1
    return gamma(terms, UNIT_MATRIX)


def sum_error(keys: torch.Tensor) -> torch.Tensor:
    """The error of a tiled sum over ``keys`` visible keys, relative to the sum of magnitudes.

    Tiles of t keys need a dot product of length t, then a rescaling and a sum each. The error is
    convex in t, so the smallest or the largest tile is worst. Masked keys add exact zeros.
    """
    worst = torch.zeros_like(keys)
    for tile in TILES:
        length = keys.clamp_max(tile)
        steps = length + (length / SMALLEST_GROUP).ceil() + 2 * tiles(keys, tile) + 2
        worst = torch.maximum(worst, steps)
    return worst * UNIT_MATRIX / (1 - worst * UNIT_MATRIX)


def tiles(keys: torch.Tensor, tile: int = TILES[0]) -> torch.Tensor:
    """The most tiles that ``keys`` visible keys can lie in; they may start inside a tile."""
    return (keys / tile).ceil() + 1


def merges(keys: torch.Tensor) -> torch.Tensor:
    """The most log-sum-exp merges that one part's result goes through."""
    return (keys / SMALLEST_PART).ceil()


def rounding_of(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """How far rounding ``x`` (float64) to a dtype may move it; 0 where it is exact."""
    exact = x.to(getattr(torch, dtype)).double() == x
    # Rounded twice if it passes through float32: slightly more than one unit.
    moved = UNIT[dtype] * (1 + 2.0**-10) * x.abs() + SMALLEST[dtype]
    return torch.where(exact, torch.zeros_like(x), moved)


def flushed(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """How far reading subnormals as zero moves ``x`` (float64)."""
    return torch.where(x.abs() < SMALLEST_NORMAL[dtype], x.abs(), torch.zeros_like(x))


def eight_bit_rounding(
    x: torch.Tensor, largest: torch.Tensor, kind: str, peak: float = EIGHT_BIT_PEAK
) -> torch.Tensor:
    """How far rounding magnitudes ``x`` to an fp8 encoding may move them, where they are scaled so
    that ``largest`` becomes ``peak``; the scale's own roundings included. 0 is a number of every
    encoding, so that none moves by more than itself."""
    smallest = SMALLEST_EIGHT_BIT[kind] / 2 / peak
    moved = torch.minimum(UNIT_EIGHT_BIT * x + smallest * largest, x)
    return (1 + 2.0**-10) * moved
