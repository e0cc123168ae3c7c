"""Counts operations, bytes and communication of a program without running it."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax


class Work(NamedTuple):
    """Operations and bytes of matrix products and convolutions.

    Attributes:
      flops: a multiplication and an addition are two.
      traffic: bytes of their operands and results, each read or written once. What lies
        between them is taken for fused, so that this is a lower bound.
    """

    flops: float
    traffic: float


def count_work(jaxpr: Any) -> Work:
    """Counts the work of a program, as `jax.make_jaxpr` returns it, on all devices.

    The compiler's own count takes the body of a loop for one run, and overflows on
    large programs.
    """
    flops = traffic = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        work = _work(equation)
        flops, traffic = flops + work.flops, traffic + work.traffic
    return Work(flops, traffic)


def _work(equation: Any) -> Work:
    name, params = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated"):
        out, right = equation.outvars[0].aval, equation.invars[1].aval
        if name == "dot_general":
            contracted, _ = params["dimension_numbers"][0]
            left = equation.invars[0].aval
            terms = math.prod(left.shape[axis] for axis in contracted)
        else:
            features = right.shape[params["dimension_numbers"].rhs_spec[0]]
            terms = math.prod(right.shape) // features
        operands = [v.aval for v in (*equation.invars, *equation.outvars)]
        return Work(2.0 * out.size * terms, float(sum(map(_num_bytes, operands))))
    platforms = params.get("branches_platforms")
    if name == "cond" and platforms and None in platforms:
        # Written in another way for some platform, which may do more to move less:
        # what the plain one asks for is counted.
        return count_work(params["branches"][platforms.index(None)])
    if name == "cond":
        return max(map(count_work, params["branches"]), key=lambda work: work.flops)
    times = params["length"] if name == "scan" else 1
    if name == "shard_map":  # Inside, shapes are those of one device.
        times = params["mesh"].size
    flops = traffic = 0.0
    for inner in _inner(params):
        work = count_work(inner)
        flops, traffic = flops + times * work.flops, traffic + times * work.traffic
    return Work(flops, traffic)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _num_bytes(aval: Any) -> int:
    # Random keys and tokens are no arrays of numbers: they hardly count.
    return getattr(aval, "size", 0) * getattr(aval.dtype, "itemsize", 8)


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of the arrays of a tree, or of their shares on one device."""

    def share(leaf: Any) -> int:
        shape = leaf.shape
        if getattr(leaf, "sharding", None) is not None:
            shape = leaf.sharding.shard_shape(shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(share(leaf) for leaf in jax.tree.leaves(tree))


def peak_bytes(jaxpr: Any) -> int:
    """Estimates the memory of a program, as `jax.make_jaxpr` returns it, on one device.

    Each value is held from where it is made to its last use, in the order of the
    program; arguments too, as if they were donated.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    last: dict[Any, int] = {}
    for i, equation in enumerate(jaxpr.eqns):
        last |= {
            var: i for var in (*equation.invars, *equation.outvars) if _is_var(var)
        }
    last |= {var: len(jaxpr.eqns) for var in jaxpr.outvars if _is_var(var)}
    live = peak = sum(_num_bytes(v.aval) for v in (*jaxpr.invars, *jaxpr.constvars))
    for i, equation in enumerate(jaxpr.eqns):
        made = sum(_num_bytes(var.aval) for var in equation.outvars)
        inside = max(map(_inside_bytes, _inner(equation.params)), default=0)
        peak = max(peak, live + made + inside)
        ends = {
            v
            for v in (*equation.invars, *equation.outvars)
            if _is_var(v) and last.get(v) == i
        }
        live += made - sum(_num_bytes(var.aval) for var in ends)
    return peak


def _inside_bytes(jaxpr: Any) -> int:
    """Returns what a part of a program holds beside its arguments and results."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    edge = sum(_num_bytes(var.aval) for var in (*inner.invars, *inner.outvars))
    return max(peak_bytes(jaxpr) - edge, 0)


def _is_var(atom: Any) -> bool:
    return not hasattr(atom, "val")  # A literal has one.


_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_ARRAY = re.compile(r"\b([a-z]+\d*)\w*\[([\d,]*)\]")
_OPERATION = re.compile(r" = (.+?) ([a-z][a-z\-]*)\(")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|called_computations|branch_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_LIMIT = re.compile(r" = s32\[\]\S* constant\((\d+)\)")
_CHAIN = re.compile(r"chain_id=\"(\d+)\"")
_FUSED_SCATTER = "all-reduce-scatter"  # libtpu's name of the computation.
_TRIPS = re.compile(r"known_trip_count\"?[=:]\{\"?n\"?[=:]\"?(\d+)")


class Collective(NamedTuple):
    """One kind of communication of a program, on each device.

    Attributes:
      count: how often.
      traffic: bytes of the results.
    """

    count: int
    traffic: int


def count_collectives(hlo: str) -> dict[str, Collective]:
    """Counts the communication of a compiled program by kind.

    Args:
      hlo: its text. What is in a loop counts as often as it runs where the text tells
        how often; once where it does not.
    """
    bodies, entry = _computations(hlo)
    found: dict[tuple[str, ...], tuple[str, Collective]] = {}

    def visit(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            operation = _OPERATION.search(line)
            kind = operation.group(2).removesuffix("-start") if operation else ""
            if operation and kind in _COLLECTIVES:
                size = _result_bytes(*operation.groups())
                if kind == "all-reduce" and name.startswith(_FUSED_SCATTER):
                    kind, size = "reduce-scatter", _root_bytes(bodies[name])
                # One that goes on while others compute is in the text several times,
                # with one chain; channels are shared by several of them.
                chain = _CHAIN.search(line)
                key = (kind, chain.group(1)) if chain else (name, line)
                runs = times
                if key in found and not chain:
                    runs += found[key][1].count
                found[key] = (kind, Collective(runs, runs * size))
                continue  # What it calls adds two numbers.
            inner = times * _num_runs(line, bodies) if kind == "while" else times
            for called in _CALLED.findall(line):
                for other in re.findall(r"[\w.\-]+", called):
                    visit(other, inner)

    visit(entry, 1)
    totals: dict[str, Collective] = {}
    for kind, one in sorted(found.values()):
        count, traffic = totals.get(kind, (0, 0))
        totals[kind] = Collective(count + one.count, traffic + one.traffic)
    return totals


def _root_bytes(lines: list[str]) -> int:
    (root,) = [line for line in lines if line.lstrip().startswith("ROOT ")]
    operation = _OPERATION.search(root)
    return _result_bytes(*operation.groups()) if operation else 0


def _num_runs(loop: str, bodies: dict[str, list[str]]) -> int:
    """Returns how often a loop runs, 1 if nothing tells."""
    known = _TRIPS.search(loop)
    condition = _CONDITION.search(loop)
    if known or not condition:
        return int(known.group(1)) if known else 1
    # As libtpu writes the loops of JAX: while a counter from 0 is less than a number.
    lines = "\n".join(bodies.get(condition.group(1), ()))
    limits = _LIMIT.findall(lines)
    return int(limits[0]) if len(limits) == 1 and "direction=LT" in lines else 1


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry = current = ""
    for line in hlo.splitlines():
        header = _HEADER.match(line)
        if header:
            current = header.group(2)
            entry = current if header.group(1) else entry
            bodies[current] = []
        elif current:
            bodies[current].append(line)
    return bodies, entry


def _result_bytes(shape: str, operation: str) -> int:
    sizes = []
    for kind, dims in _ARRAY.findall(shape):
        # A type ends in its bits, except a truth value's, which has a byte.
        bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind) or 0)
        sizes.append(math.prod(int(d) for d in dims.split(",") if d) * bits // 8)
    # The start of one returns its operand beside its result; not that of a reduction.
    if operation.endswith("-start") and operation != "all-reduce-start":
        return max(sizes, default=0)
    return sum(sizes)
