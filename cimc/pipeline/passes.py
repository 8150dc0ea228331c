"""The passes by name: what each takes and gives, which options it has, where it is found.

A pass is a public function in a module of its own, named as the command line names it, in a package
that the entry point group `cimc.passes` names (`fold-constants` is in `fold_constants.py`):

    @graph_pass("fold-constants")
    def fold_constants(graph: Graph, *, max_elements: int = 65536) -> Graph:
        "Compute what depends on constants only."

It takes a Graph, Tiles or Program and gives one, changing nothing in place. Keyword-only parameters
are its options, written `fold-constants{max_elements=4096}`; one called `target` is no option, it
gets the machine that is compiled for.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import ParamSpec, TypeAlias, TypeVar

from cimc.errors import Fault, InternalError, UsageError, raise_if, warn
from cimc.ir.graph import Graph
from cimc.ir.program import Program
from cimc.ir.text import Literal
from cimc.ir.tiles import Tiles
from cimc.target import Target

State: TypeAlias = Graph | Tiles | Program
PASSES_GROUP = "cimc.passes"  # entry points: a package with one module for each pass

P = ParamSpec("P")
R = TypeVar("R", Graph, Tiles, Program)


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass: its function, what that takes and gives, and its options with their defaults."""

    name: str
    function: Callable[..., State]
    takes: type[State]
    gives: type[State]
    options: Mapping[str, type]  # name -> type of value
    defaults: Mapping[str, Literal]
    needs_target: bool
    summary: str

    def run(self, state: State, options: Mapping[str, Literal], target: Target | None) -> State:
        """Apply the pass."""
        raise_if(self.faults(state, options, target), UsageError)
        if self.needs_target:
            return self.function(state, target=target, **options)
        return self.function(state, **options)

    def faults(
        self, state: State, options: Mapping[str, Literal], target: Target | None
    ) -> list[Fault]:
        """Why the pass cannot be applied as asked."""
        found = self.option_faults(options)
        if not isinstance(state, self.takes):
            found.append(
                Fault(
                    f"pass {self.name} does not take this",
                    need=self.takes.__name__,
                    have=type(state).__name__,
                    code="CIM2072",
                )
            )
        if self.needs_target and target is None:
            found.append(Fault(f"pass {self.name} needs a target", help="-t NAME", code="CIM2073"))
        return found

    def option_faults(self, options: Mapping[str, Literal]) -> list[Fault]:
        """Options that the pass does not have, or of another type."""
        found = []
        for name, value in options.items():
            if name not in self.options:
                near = difflib.get_close_matches(name, self.options, n=1)
                found.append(
                    Fault(
                        f"pass {self.name} has no option {name}",
                        have=", ".join(self.options) or "it has none",
                        help=f"did you mean {near[0]}?" if near else "",
                        code="CIM2074",
                    )
                )
            elif not _fits(value, self.options[name]):
                found.append(
                    Fault(
                        f"pass {self.name}: option {name}",
                        need=_type_name(self.options[name]),
                        have=repr(value),
                        code="CIM2075",
                    )
                )
        return found


_PASSES: dict[str, Pass] = {}


def graph_pass(name: str) -> Callable[[Callable[P, Graph]], Callable[P, Graph]]:
    """Decorator: register a pass from Graph to Graph."""
    return compiler_pass(name)


def compiler_pass(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: register a pass; its annotations say what it takes and gives."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        if name in _PASSES:
            raise InternalError(f"two passes are called {name}")
        _PASSES[name] = _described(name, function)
        return function

    return register


def _described(name: str, function: Callable[..., State]) -> Pass:
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    states = (Graph, Tiles, Program)
    takes, gives = hints.get(parameters[0].name), hints.get("return")
    if takes not in states or gives not in states:
        raise InternalError(f"pass {name} must take and give a Graph, Tiles or Program")
    keywords = [item for item in parameters[1:] if item.kind is item.KEYWORD_ONLY]
    if len(keywords) != len(parameters) - 1:
        raise InternalError(f"pass {name}: options must be keyword-only")
    options = {item.name: hints[item.name] for item in keywords if item.name != "target"}
    defaults = {
        item.name: item.default
        for item in keywords
        if item.name != "target" and item.default is not item.empty
    }
    needs_target = any(item.name == "target" for item in keywords)
    summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    return Pass(name, function, takes, gives, options, defaults, needs_target, summary)


def _fits(value: Literal, wanted: type) -> bool:
    kinds = typing.get_args(wanted) or (wanted,)
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return int in kinds or float in kinds
    if value is None:
        return type(None) in kinds
    return type(value) in kinds


def _type_name(wanted: type) -> str:
    return wanted.__name__ if isinstance(wanted, type) else str(wanted)


# --- finding ---


@cache
def pass_modules() -> Mapping[str, str]:
    """Every pass that can be named, built-in ones and plug-ins alike: name -> module."""
    found: dict[str, str] = {}
    entries = sorted(metadata.entry_points(group=PASSES_GROUP), key=lambda entry: entry.value)
    for entry in entries:
        spec = importlib.util.find_spec(entry.value)
        for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else None):
            if not module.name.startswith("_"):
                name = module.name.replace("_", "-")
                found.setdefault(name, f"{entry.value}.{module.name}")
    return dict(sorted(found.items()))


def pass_named(name: str) -> Pass:
    """The pass called `name`; raises UsageError with the nearest name if there is none."""
    if name not in _PASSES and name in pass_modules():
        importlib.import_module(pass_modules()[name])
    if name in _PASSES:
        return _PASSES[name]
    near = difflib.get_close_matches(name, pass_modules(), n=1)
    raise UsageError(
        Fault(
            f"no pass is called {name!r}",
            help=f"did you mean {near[0]}?" if near else "`cimc opt --list-passes` lists them",
            code="CIM2071",
        )
    )


def all_passes() -> tuple[Pass, ...]:
    """Every pass, by name; a plug-in that cannot be imported is a warning."""
    for name, module in pass_modules().items():
        try:
            importlib.import_module(module)
        except Exception as problem:  # a plug-in may fail in any way
            have = f"{type(problem).__name__}: {problem}"
            warn(Fault(f"pass {name} cannot be imported from {module}", have=have, code="CIM2076"))
    return tuple(_PASSES[name] for name in sorted(_PASSES))
