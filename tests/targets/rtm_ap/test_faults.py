"""What does not fit an array, or was not to be run on it: errors with the arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cimc.cli import cli
from cimc.errors import Fault, FitError, UnsupportedError
from cimc.ir.graph import Graph, parse_graph
from cimc.kind import Options
from cimc.passes.require_ternary import require_ternary
from cimc.passes.tile import tile
from cimc.pipeline.levels import Effort
from cimc.target import Target, load_target
from cimc.targets.rtm_ap import KIND
from cimc.targets.rtm_ap.codegen import Style
from cimc.targets.rtm_ap.plan import Plan, Tile
from cimc.targets.rtm_ap.work import work_of
from tests.targets.rtm_ap.test_rtm_ap import conv_graph

MODEL = Path(__file__).parents[3] / "models" / "shapes_int8.onnx"


def machine(columns: int, domains: int) -> Target:
    return load_target("rtm-ap", {"ap.columns": columns, "ap.domains": domains})


def fault_of(graph: Graph, target: Target, plan: Plan | None = None) -> Fault:
    """What mapping, or lowering a plan that somebody wrote, complains about."""
    tiles = tile(graph, target=target)
    if plan is not None:
        (layer, *rest) = tiles.layers
        assert layer.nest is not None
        nest = plan.nest(layer.nest, target, work_of(layer, tiles).shape)
        tiles = replace(tiles, layers=(replace(layer, nest=nest), *rest))
    with pytest.raises(FitError) as problem:
        KIND.map(tiles, target, Options()) if plan is None else KIND.lower(tiles, target)
    (fault,) = problem.value.faults
    assert fault.where.endswith("does not fit the arrays")
    assert fault.code == "CIM3201"
    return fault


def test_too_few_columns() -> None:
    target = machine(columns=40, domains=1)
    fault = fault_of(conv_graph(ternary=True), target)
    # 9 inputs of 8 bits beside one accumulator, a sum of 9 inputs and 4 carries
    assert fault.need.endswith("12 for a local sum, 72 for 9 inputs of 8 bits, 4 for carries")
    assert fault.have == f"40 columns of 1 domains ({target.path}: ap)"
    accumulator = int(fault.need.split("1 x ")[1].split()[0])
    assert fault.help.startswith(f"raise ap.columns to {accumulator + 12 + 72 + 4}, or ap.domains")
    assert fault.need.startswith(
        f"{accumulator + 88} columns: 1 x {accumulator} for 1 accumulators"
    )


def test_arrays_of_the_size_that_the_fault_asks_for_are_enough() -> None:
    fault = fault_of(conv_graph(), machine(columns=40, domains=1))
    columns = int(fault.need.split()[0])
    assert KIND.map(tile(conv_graph(), target=machine(columns, 1)), machine(columns, 1), Options())


def test_accumulators_that_cannot_fit() -> None:
    plan = Plan("program", Tile(1, 3, 4), 1, 1, Style(9))
    fault = fault_of(conv_graph(), machine(columns=100, domains=2), plan)
    assert "6 x " in fault.need
    assert "for 12 accumulators" in fault.need
    assert "or ap.domains: 2 accumulators lie on top of each other" in fault.help
    assert fault.help.startswith("run the pass map again, or raise ap.columns to ")


def test_more_inputs_than_domains() -> None:
    plan = Plan("program", Tile(1, 3, 4), 1, 1, Style(72))
    fault = fault_of(conv_graph(), machine(columns=160, domains=4), plan)
    assert "144 for 72 inputs of 8 bits" in fault.need  # 4 in each stack, so 18 stacks of 8 columns
    multiply = Plan("multiply", Tile(1, 2, 2, 1, 2), 1, 1, Style(72))
    fault = fault_of(conv_graph(), machine(columns=160, domains=4), multiply)
    assert "18 x 10 for 72 inputs with their weights" in fault.need


def test_all_layers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    arguments = ["compile", str(MODEL), "-t", "rtm-ap", "-o", str(tmp_path / "out")]
    small = ["--set", "ap.columns=40", "--set", "ap.domains=8"]
    shown = CliRunner().invoke(cli, [*arguments, *small])
    assert shown.exit_code == 4
    nodes = [line.split()[1] for line in shown.stderr.splitlines() if line.startswith("  node:")]
    assert nodes == ["stem", "b0a", "b0b", "d0", "b1a", "b1b"]
    assert list(tmp_path.iterdir()) == []


MIXED = """
graph "mixed"
%x : i8[1,3]<1,0> = input
%w : i8[3,2] = constant {value=(5, 1, -5, 0, 0, 2)}
%y : i32[1,2] = matmul %x, %w, _ @("fc",)
%v : i8[2,2] = constant {value=(3, 1, 0, -1)}
%q : i8[1,2]<1,0> = requant %y, %m, _
%z : i32[1,2] = matmul %q, %v, _ @("fc2",)
return %z
"""


def test_weights_that_were_to_be_ternary() -> None:
    graph = parse_graph(MIXED.replace("%q :", "%m : f32[1] = constant {value=(0.5,)}\n%q :"))
    with pytest.raises(UnsupportedError) as problem:
        require_ternary(graph)
    (fault,) = problem.value.faults  # the second layer has 3 and 1 in channels of their own
    assert str(fault) == (
        "error CIM3204: weights of %y are not ternary\n"
        "  node:    fc\n"
        "  need:    -a, 0 and +a only in every output channel\n"
        "  have:    output channel 1 has 2 magnitudes, 1 to 2\n"
        "  help:    --ternarize all makes them ternary (lossy); "
        "without --require-ternary they run as signed digits"
    )


def test_ternary_weights_pass() -> None:
    assert require_ternary(conv_graph(ternary=True)) == conv_graph(ternary=True)


def test_the_option_asks_for_the_pass() -> None:
    target = load_target("rtm-ap")
    names = [step.name for step in Effort(require_ternary=True).graph_steps(target)]
    assert names.index("require-ternary") == names.index("detect-ternary") + 1
    assert "require-ternary" not in [step.name for step in Effort().graph_steps(target)]
    shown = CliRunner().invoke(cli, ["compile", "--help"]).output
    assert "--require-ternary" in shown
