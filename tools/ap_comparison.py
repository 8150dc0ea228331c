"""Ternary networks on the racetrack associative processor and on a crossbar: energy, latency, why.

    python tools/ap_comparison.py [--networks resnet18@0.8,vgg9@0.85] [--crossbar isaac]
    python tools/ap_comparison.py --networks "" --model models/cifar10_ternary.onnx --format md

Networks are drawn by models/networks.py: ternary weights with a share of zeros, activations of
--activation-bits bits (trained files are given by --model). Both machines compile the same file;
the crossbar stores weights of 2 bits, one cell each, and sends inputs of --activation-bits bits;
its output registers are enlarged (at their energy per bit), since a core then serves more channels.
Each network is compiled and simulated once for each machine: energy is affine in every price, with
counted events as coefficients, so all else follows by arithmetic.

The paper (arXiv 2401.12630) claims 7.5 times less energy than a crossbar on ResNet-18 and 3 % of
energy for moving activations. It publishes no constant that we could read: ours are assumed where
the target file says so, and nothing printed here is the paper's but those two numbers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cimc import api
from cimc.report.table import Table
from cimc.sim.energy import energy
from cimc.sim.simulate import simulate
from cimc.target import Target, load_target
from cimc.targets.rtm_ap.functions import costs

ROOT = Path(__file__).parent.parent
NETWORKS = "resnet18@0.8,vgg9@0.85,vgg9@0.9,vgg11@0.85,vgg11@0.9"
CLAIM = 7.5  # crossbar energy / AP energy, ResNet-18
CLAIMED_SHARE = 0.03  # of moving activations
REGISTERS = 16  # times the crossbar's output registers
FACTORS = (0.1, 1.0, 10.0)
RUNS = ("ap-run",)  # what these read from memory is program, not activations


@dataclass(frozen=True)
class Bill:
    """Energy of one inference, as counts by the keys of the target file that price them."""

    target: Target
    counts: Mapping[str, float]  # key -> events, or cycles for leakage
    values: Mapping[str, float]  # key -> pJ
    parts: Mapping[str, float]  # what energy is spent for -> pJ
    latency_ms: float
    assumed: frozenset[str]

    def pj(self, changes: Mapping[str, float] | None = None) -> float:
        """Energy with some constants replaced."""
        values = {**self.values, **(changes or {})}
        return sum(count * values[key] for key, count in self.counts.items())

    @property
    def leakage(self) -> dict[str, float]:
        """No leakage at all, as a change."""
        return {key: 0.0 for key in self.counts if key.endswith("leakage_pj_per_cycle")}

    def value_for(self, key: str, pj: float) -> float | None:
        """The value of a constant at which the energy is `pj`; None: no value is low enough."""
        if not self.counts.get(key):
            return None
        value = self.values[key] + (pj - self.pj()) / self.counts[key]
        return value if value >= 0 else None


def bill(program: api.Program) -> Bill:
    """Simulate a program and price what it does."""
    compiled = program.compiled
    target = compiled.target
    simulation = simulate(compiled.program, target, samples=1)
    cycles = simulation.latency_cycles
    spent = energy(compiled.program, target, cycles, plan=simulation.plan)
    counts: dict[str, float] = {}
    values: dict[str, float] = {}
    parts: dict[str, float] = {}
    assumed = set(target.assumed_keys())
    outer = next(iter(target.spec.memory))
    for item in spent.counted:
        # an event with several keys costs some function of them: its price is kept as it is
        key = item.price.keys[0] if len(item.price.keys) == 1 else f"{item.event} (price)"
        if assumed.intersection(item.price.keys):
            assumed.add(key)
        counts[key] = counts.get(key, 0.0) + item.count
        values[key] = item.price.pj
        part = _part(item.event, item.mnemonic, outer)
        parts[part] = parts.get(part, 0.0) + item.pj
    for name, memory in target.spec.memory.items():
        key = f"memory.{name}.leakage_pj_per_cycle"
        if memory.leakage_pj_per_cycle:
            counts[key] = cycles * (target.spec.cores if memory.per == "core" else 1)
            values[key] = memory.leakage_pj_per_cycle
    parts["leakage"] = spent.static_pj
    return Bill(target, counts, values, parts, target.cycles_to_ms(cycles), frozenset(assumed))


def _part(event: str, mnemonic: str, outer: str) -> str:
    """What an event is for."""
    component = event.partition(".")[0]
    if component in (outer, "link", "bus"):
        return "program" if mnemonic in RUNS else "activations"
    if component in ("ap", "array", "adc", "dac"):
        return "arrays"
    return "sums, registers, vector unit"


@dataclass(frozen=True)
class Pair:
    """One network on both machines."""

    network: str
    ap: Bill
    crossbar: Bill

    def ratio(self, changes: Mapping[str, float] | None = None) -> float:
        """Crossbar energy by AP energy, with constants of the AP replaced."""
        return self.crossbar.pj() / self.ap.pj(changes)


def share(bill_: Bill, part: str, of_dynamic: bool = False) -> float:
    """Part of all energy, or of all but leakage."""
    whole = bill_.pj(bill_.leakage) if of_dynamic else bill_.pj()
    return bill_.parts.get(part, 0.0) / whole


def networks_table(pairs: Sequence[Pair]) -> Table:
    """One row per network."""
    columns = (
        *("network", "ap_mj", "crossbar_mj", "ratio", "ratio_without_leakage", "claimed"),
        *("ap_ms", "crossbar_ms", "ap_leakage", "ap_program", "ap_moved", "ap_moved_of_dynamic"),
        *("crossbar_moved", "claimed_moved"),
    )
    rows = []
    for pair in pairs:
        ap, crossbar, is_claimed = pair.ap, pair.crossbar, pair.network.startswith("resnet18")
        rows.append(
            (
                pair.network,
                ap.pj() * 1e-9,
                crossbar.pj() * 1e-9,
                pair.ratio(),
                crossbar.pj(crossbar.leakage) / ap.pj(ap.leakage),
                CLAIM if is_claimed else None,
                ap.latency_ms,
                crossbar.latency_ms,
                _percent(share(ap, "leakage")),
                _percent(share(ap, "program")),
                _percent(share(ap, "activations")),
                _percent(share(ap, "activations", of_dynamic=True)),
                _percent(share(crossbar, "activations")),
                _percent(CLAIMED_SHARE) if is_claimed else None,
            )
        )
    return Table("energy and latency per inference", columns, tuple(rows))


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def sensitivity_table(pair: Pair) -> Table:
    """The ratio for other values of every assumed constant, of the AP and of the crossbar."""
    columns = ("constant", "value", "energy_share", "ratio_x0.1", "ratio_x1", "ratio_x10",
               "documented", "ratio_there", "value_for_claim")  # fmt: skip
    rows = []
    for bill_, is_ap in ((pair.ap, True), (pair.crossbar, False)):
        for key in sorted(bill_.counts, key=lambda name: -bill_.counts[name] * bill_.values[name]):
            spent = bill_.counts[key] * bill_.values[key] / bill_.pj()
            if key not in bill_.assumed and spent < 0.05:
                continue
            ratios = [_ratio(pair, is_ap, {key: bill_.values[key] * f}) for f in FACTORS]
            sources = documented(bill_.target, key)
            there = [f"{_ratio(pair, is_ap, {key: value}):.3g}" for value in sources]
            goal = pair.crossbar.pj() / CLAIM if is_ap else pair.ap.pj() * CLAIM
            needed = bill_.value_for(key, goal)
            rows.append(
                (
                    f"{bill_.target.name}: {key}{'' if key in bill_.assumed else ' (published)'}",
                    bill_.values[key],
                    _percent(spent),
                    *ratios,
                    " .. ".join(f"{value:g}" for value in sources) or None,
                    " .. ".join(there) or None,
                    "none" if needed is None else f"{needed:.3g}",
                )
            )
    return Table(f"{pair.network}: ratio for other constants", columns, tuple(rows))


def _ratio(pair: Pair, is_ap: bool, changes: Mapping[str, float]) -> float:
    if is_ap:
        return pair.ratio(changes)
    return pair.crossbar.pj(changes) / pair.ap.pj()


def documented(target: Target, key: str) -> tuple[float, ...]:
    """What sources say of a constant that the target file assumes."""
    table, _, name = key.rpartition(".")
    held: Mapping[str, tuple[float, ...]] = getattr(
        getattr(target.spec, table, None), "documented", {}
    )
    return held.get(name, ())


def functions_table(target: Target) -> Table:
    """What ReLU, clip and pooling take in the arrays, and on the vector unit, which runs them."""
    columns = ("function", "bits", "passes", "array_pj", "vector_pj", "cheaper")
    rows = []
    for bits in (4, 8, 13):
        for cost in costs(target, bits):
            cheaper = "arrays" if cost.array_pj < cost.vector_pj else "vector unit"
            found = (cost.passes, cost.array_pj, cost.vector_pj, cheaper)
            rows.append((cost.name, cost.bits, *found))
    return Table(f"functions of one element on {target.name}", columns, tuple(rows))


def statements(pair: Pair) -> Iterator[str]:
    """Under which constants the claim holds for a network, and under which it does not."""
    ap, ratio, goal = pair.ap, pair.ratio(), pair.crossbar.pj() / CLAIM
    verdict = "holds" if ratio >= CLAIM else "does not hold"
    yield (
        f"{pair.network}: with the constants of {ap.target.name} and {pair.crossbar.target.name} "
        f"the ratio is {ratio:.3g}; {CLAIM} {verdict}."
    )
    assumed = [key for key in ap.counts if key in ap.assumed]
    alone = {key: value for key in assumed if (value := ap.value_for(key, goal)) is not None}
    if ratio < CLAIM and alone:
        said = ", ".join(f"{key} <= {value:.3g}" for key, value in alone.items())
        yield f"One constant alone makes it hold: {said}."
    elif ratio < CLAIM:
        yield "No assumed constant alone makes it hold, not even at 0."
    scaled = sum(ap.counts[key] * ap.values[key] for key in assumed)
    rest = ap.pj() - scaled
    if goal > rest:
        yield (
            f"All {len(assumed)} assumed prices together times {(goal - rest) / scaled:.3g} (or "
            f"less) make it hold; the published ones (memory) take {_percent(rest / goal)} of what "
            "the claim leaves."
        )
    else:
        yield (
            f"Not even all {len(assumed)} assumed prices at 0 make it hold: the published ones "
            f"alone leave a ratio of {pair.crossbar.pj() / rest:.3g}."
        )
    yield f"All prices of {ap.target.name} together times {ratio / CLAIM:.3g} make it hold."
    low, high = (
        {key: pick(found) for key in ap.counts if (found := documented(ap.target, key))}
        for pick in (min, max)
    )
    yield (
        f"At the lowest prices that sources give the ratio is {pair.ratio(low):.3g}, "
        f"at the highest {pair.ratio(high):.3g}; without leakage {pair.ratio(ap.leakage):.3g}, at "
        f"the lowest without leakage {pair.ratio({**low, **ap.leakage}):.3g}."
    )
    moved = share(ap, "activations", of_dynamic=True)
    yield (
        f"Moving activations takes {_percent(share(ap, 'activations'))} of all energy "
        f"({_percent(moved)} without leakage), {_percent(share(pair.crossbar, 'activations'))} on "
        f"the crossbar; the paper says {_percent(CLAIMED_SHARE)}."
    )


def compared(model: Path, network: str, crossbar: str, bits: int, weight_bits: int = 2) -> Pair:
    """Compile a model for both machines; the crossbar has operands of these bits."""
    registers, memory = list(load_target(crossbar).spec.memory.items())[-1]
    narrow = {
        "operands.weight_bits": weight_bits,
        "operands.input_bits": bits,
        f"memory.{registers}.size_bits": REGISTERS * memory.size_bits,
    }
    machines = load_target("rtm-ap"), load_target(crossbar, narrow)
    bills = [bill(api.compile(model, machine, verify="none")) for machine in machines]
    return Pair(network, *bills)


def models(
    given: str, files: Sequence[Path], bits: int, folder: Path
) -> Iterator[tuple[str, Path]]:
    """Names and files: drawn networks, then those that were given."""
    for item in filter(None, given.split(",")):
        name, _, sparsity = item.partition("@")
        path = folder / f"{name}-{sparsity}.onnx"
        words = [sys.executable, str(ROOT / "models" / "networks.py"), name, str(path)]
        subprocess.run([*words, "--ternary", sparsity, "--activation-bits", str(bits)], check=True)
        yield f"{name}, {float(sparsity):.0%} zero", path
    for path in files:
        yield f"{path.stem} (trained)", path


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=NETWORKS, metavar="NAME@SPARSITY,...")
    parser.add_argument("--model", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--crossbar", default="isaac", metavar="TARGET")
    parser.add_argument("--activation-bits", type=int, default=4)
    parser.add_argument(
        "--crossbar-bits",
        type=int,
        nargs=2,
        default=None,
        metavar=("W", "X"),
        help="bits of the crossbar's weights and inputs, instead of 2 and those",
    )
    parser.add_argument("--format", choices=["table", "md"], default="table")
    args = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        bits = args.activation_bits
        for network, path in models(args.networks, args.model, bits, Path(folder)):
            weight_bits, input_bits = args.crossbar_bits or (2, bits)
            pairs.append(compared(path, network, args.crossbar, input_bits, weight_bits))
            print(f"{network}: compiled for both machines", file=sys.stderr)
    print(networks_table(pairs).format(args.format))
    print(functions_table(load_target("rtm-ap")).format(args.format))
    for pair in pairs:
        print(sensitivity_table(pair).format(args.format))
        print("\n".join(statements(pair)) + "\n")


if __name__ == "__main__":
    main()
