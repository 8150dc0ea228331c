"""The driver: passes in order, options checked first, states verified, observers told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cimc.errors import Fault, InternalError, UsageError
from cimc.ir.graph import Graph, Value, digest_of, parse_graph
from cimc.ir.text import TextError
from cimc.pipeline import passes
from cimc.pipeline.observe import Dump, Print, Reproducer, Timing
from cimc.pipeline.passes import Pass, graph_pass, pass_named
from cimc.pipeline.run import Observer, Place, run_pipeline
from cimc.pipeline.spec import parse_pipeline, pipeline_text
from cimc.pipeline.state import load_state, next_steps, save_state

GRAPH = """
graph "tiny"
%x : f32[1,20] = input
%w : f32[20] = constant {digest="DIGEST"}
%y : f32[1,20] = binary %x, %w {fn="add"} @("Add_0",)
return %y
"""


@pytest.fixture
def graph() -> Graph:
    array = np.arange(20, dtype=np.float32)
    digest = digest_of(array)
    return parse_graph(GRAPH.replace("DIGEST", digest), {digest: array})


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three passes that exist in these tests only."""
    monkeypatch.setattr(passes, "_PASSES", dict(passes._PASSES))

    @graph_pass("rename-graph")
    def rename_graph(graph: Graph, *, to: str = "renamed") -> Graph:
        """Give the graph another name."""
        return dataclasses.replace(graph, name=to)

    @graph_pass("break-types")
    def break_types(graph: Graph) -> Graph:
        """Return a graph that no longer makes its output."""
        return dataclasses.replace(graph, outputs=(Value("nothing", graph.outputs[0].type),))

    @graph_pass("crash")
    def crash(graph: Graph, *, message: str = "boom") -> Graph:
        """Fail as a bug would."""
        raise KeyError(message)


@pytest.mark.parametrize(
    "source",
    ["", "tile", 'tile{host_fallback=true},map{level=3, objective="edp"},lower'],
)
def test_a_pipeline_reads_back(source: str) -> None:
    assert pipeline_text(parse_pipeline(source)) == source


def test_a_pipeline_that_cannot_be_read() -> None:
    with pytest.raises(TextError, match="-p:1:6: cannot read this"):
        parse_pipeline("tile,,map")


def test_options_reach_the_pass(graph: Graph, known: None) -> None:
    after = run_pipeline(graph, parse_pipeline('rename-graph{to="other"}'))
    assert isinstance(after, Graph)
    assert after.name == "other"
    assert graph.name == "tiny"


def test_all_mistakes_are_reported_before_the_first_pass(graph: Graph, known: None) -> None:
    with pytest.raises(UsageError) as caught:
        run_pipeline(
            graph, parse_pipeline('crash,rename-graf,rename-graph{too="a"},crash{message=1}')
        )
    assert [str(fault) for fault in caught.value.faults] == [
        "error CIM2071: no pass is called 'rename-graf'\n"
        "  help:    `cimc opt --list-passes` lists them",
        "error CIM2074: pass rename-graph has no option too\n"
        "  have:    to\n  help:    did you mean to?",
        "error CIM2075: pass crash: option message\n  need:    str\n  have:    1",
    ]


def test_a_pass_that_needs_other_states_or_a_target(graph: Graph) -> None:
    with pytest.raises(UsageError) as caught:
        run_pipeline(graph, parse_pipeline("map"))
    assert [fault.code for fault in caught.value.faults] == ["CIM2072", "CIM2073"]


def test_verification_finds_a_broken_pass(graph: Graph, known: None) -> None:
    for verify in ("each", "final"):
        with pytest.raises(InternalError, match="output %nothing is not made"):
            run_pipeline(graph, parse_pipeline("break-types"), verify=verify)
    after = run_pipeline(graph, parse_pipeline("break-types"), verify="none")
    assert isinstance(after, Graph)


def test_dumps_load_back_and_share_tensors(graph: Graph, known: None, tmp_path: Path) -> None:
    timing = Timing()
    steps = parse_pipeline('rename-graph,rename-graph{to="last"}')
    after = run_pipeline(graph, steps, observers=[Dump(tmp_path), timing])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["01-graph-rename-graph.cir", "02-graph-rename-graph.cir", "tensors"]
    assert len(list((tmp_path / "tensors").iterdir())) == 1
    first = tmp_path / names[0]
    loaded = load_state(first)
    assert isinstance(loaded, Graph)
    assert loaded.name == "renamed"
    assert next_steps(first) == 'rename-graph{to="last"}'
    resumed = run_pipeline(loaded, parse_pipeline(next_steps(first) or ""))
    assert resumed == after
    assert isinstance(resumed, Graph)
    digest = getattr(resumed.ops[1], "digest", "")
    assert (resumed.tensors[digest] == graph.tensors[digest]).all()
    assert [name for _, name, _ in timing.rows] == ["rename-graph", "rename-graph"]
    assert "total" in timing.table()


def test_printing(graph: Graph, known: None) -> None:
    shown: list[str] = []
    steps = parse_pipeline("rename-graph,rename-graph")
    run_pipeline(graph, steps, observers=[Print(shown.append, change=True)])
    assert shown[0].startswith('# ----- after rename-graph -----\ngraph "renamed"\n')
    assert shown[1] == "# ----- after rename-graph: no change -----"
    shown.clear()
    run_pipeline(graph, steps, observers=[Print(shown.append, names=["other"])])
    assert shown == []
    with pytest.raises(InternalError):
        run_pipeline(graph, parse_pipeline("crash"), observers=[Print(shown.append, failure=True)])
    assert shown[0].startswith('# ----- before crash, which failed -----\ngraph "tiny"\n')


def test_an_internal_error_leaves_a_reproducer(graph: Graph, known: None, tmp_path: Path) -> None:
    steps = parse_pipeline('rename-graph,crash{message="why"},rename-graph')
    with pytest.raises(InternalError) as caught:
        run_pipeline(graph, steps, observers=[Reproducer(tmp_path, "isaac", "cimc compile m.onnx")])
    path = tmp_path / "cimc-reproducer-crash.cir"
    broke, note = caught.value.faults
    assert broke.where == "pass crash broke: KeyError: 'why'"
    assert note.help == (
        f"cimc opt {path} -t isaac -p 'crash{{message=\"why\"}},rename-graph' --verify-each"
    )
    loaded = load_state(path)
    assert isinstance(loaded, Graph)
    assert loaded.name == "renamed"


def test_a_persons_mistake_leaves_no_reproducer(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run_pipeline(graph, parse_pipeline("map"), observers=[Reproducer(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_observers_may_add_to_an_internal_error(graph: Graph, known: None) -> None:
    class Adds(Observer):
        def failed(self, place: Place, before: object, problem: Exception) -> Fault | None:
            return Fault(f"at {place.number} of {place.count}")

    with pytest.raises(InternalError, match="at 1 of 1"):
        run_pipeline(graph, parse_pipeline("crash"), observers=[Adds()])


def test_saved_states_are_whole(graph: Graph, tmp_path: Path) -> None:
    save_state(graph, tmp_path / "a.cir", ("after: nothing",))
    assert load_state(tmp_path / "a.cir") == graph
    assert not list(tmp_path.rglob(".*"))


def test_passes_describe_themselves() -> None:
    tile = pass_named("tile")
    assert isinstance(tile, Pass)
    assert (tile.takes.__name__, tile.gives.__name__) == ("Graph", "Tiles")
    assert dict(tile.options) == {"host_fallback": bool}
    assert tile.needs_target
