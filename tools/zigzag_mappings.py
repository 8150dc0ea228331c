"""Let ZigZag's public package map layers, and write its mappings as nests that cimc can replay.

    python models/workloads.py resnet18 --json layers.json
    python -m venv zz && zz/bin/pip install zigzag-dse==3.9.1 six
    zz/bin/python tools/zigzag_mappings.py layers.json cimc/targets/miredo-default.toml zigzag.json
    python tools/dataflow_tables.py --networks resnet18 --zigzag-mappings zigzag.json

It runs in the package's own environment and needs nothing of cimc. The machine is described to
ZigZag as a digital in-memory array: word lines are columns, bit lines rows, banks cores; energies
per access are those of the target file. LOMA searches orders of `--loops` factors for `--spatial`
unrollings, by ZigZag's own cost model; second buffers are where that model assumes them. What is
done is in the output file and is not done again.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import yaml
from zigzag.api import get_hardware_performance_zigzag
from zigzag.mapping.data_movement import DataDirection, DataMoveAttr, DataMovePattern

DIMS = {"B": "n", "G": "g", "K": "k", "C": "c", "OY": "p", "OX": "q", "FY": "r", "FX": "s"}
OPERANDS = {"I": "I1", "W": "I2", "O": "O"}
DIRECTIONS = {"I1": ("fh", "tl"), "I2": ("fh", "tl"), "O": ("fh", "tl", "fl", "th")}
AXES = {"columns": "D1", "rows": "D2", "cores": "D3"}
GOALS = {"latency": "latency", "energy": "energy", "edp": "EDP"}


def _count_moved(pattern: DataMovePattern) -> SimpleNamespace:
    """What 3.9.1 still reads in its in-memory model, though the class holds it elsewhere now."""
    moved = pattern.get_attribute(DataMoveAttr.DATA_ELEM_MOVE_COUNT)
    return SimpleNamespace(rd_out_to_low=moved.get(DataDirection.RD_OUT_TO_LOW))


if not hasattr(DataMovePattern, "data_elem_move_count"):
    DataMovePattern.data_elem_move_count = property(_count_moved)


def accelerator(target: dict[str, object]) -> dict[str, object]:
    """The machine of a target file in ZigZag's words, memories from the innermost outwards."""
    macro = target["macro"]
    memories = {}
    for name, level in reversed(target["memory"].items()):
        apart = [*(["cores"] if level["per"] == "core" else []), *level.get("along", [])]
        operands = [OPERANDS[o] for o in level["holds"]]
        read, write = level["read_bits_per_cycle"], level["write_bits_per_cycle"]
        ports = [f"{o}, {way}" for o in operands for way in DIRECTIONS[o]]
        memories["cells" if operands == ["I2"] else name] = {
            "size": level["size_bits"],
            "r_cost": level["read_pj_per_bit"] * read,
            "w_cost": level["write_pj_per_bit"] * write,
            "area": 0,
            "latency": level["latency_cycles"],
            "operands": operands,
            "ports": [
                {
                    "name": "rw_port_1",
                    "type": "read_write",
                    "bandwidth_min": min(read, write),
                    "bandwidth_max": min(read, write),
                    "allocation": ports,
                }
            ],
            "served_dimensions": [oa for axis, oa in AXES.items() if axis not in apart],
        }
    return {
        "name": "target",
        "memories": memories,
        "operational_array": {
            "is_imc": True,
            "imc_type": "digital",
            "input_precision": [8, macro["weight_bits"]],
            "bit_serial_precision": macro["input_bits_per_cycle"],
            "dimensions": list(AXES.values()),
            "sizes": [macro["columns"], macro["rows"], target["cores"]],
        },
    }


def hints(target: dict[str, object]) -> list[dict[str, object]]:
    """Which loops may run along which axis."""
    names = {ours: theirs for theirs, ours in DIMS.items()}
    spatial = {
        oa: [names[dim] for dim in target["axis"][axis]["loops"]] for axis, oa in AXES.items()
    }
    return [{"name": "default", "memory_operand_links": OPERANDS, "spatial_mapping_hint": spatial}]


def layer(shape: dict[str, object]) -> dict[str, object]:
    """A layer in ZigZag's words; a matrix product is a convolution of one column."""
    (a, b), (u, v), (above, left) = shape["strides"], shape["dilations"], shape["pads"]
    below = (shape["p"] - 1) * a + (shape["r"] - 1) * u + 1 - shape["h"] - above
    right = (shape["q"] - 1) * b + (shape["s"] - 1) * v + 1 - shape["w"] - left
    return {
        "id": 0,
        "name": "layer",
        "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [f"ix={b}*ox+{v}*fx", f"iy={a}*oy+{u}*fy"],
        "loop_dims": list(DIMS),
        "loop_sizes": [shape[dim] for dim in DIMS.values()],
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
        "operand_source": {"I": 0, "W": 0},
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [shape["w"], shape["h"]],
        "padding": [[left, max(0, right)], [above, max(0, below)]],
    }


def nest(shape: dict[str, object], evaluation: object, target: dict[str, object]) -> str:
    """ZigZag's mapping in the text form of nests."""
    levels = [
        [name for name in reversed(target["memory"]) if operand in target["memory"][name]["holds"]]
        for operand in OPERANDS
    ]
    own = {str(op): blocks for op, blocks in evaluation.temporal_mapping.mapping_dic_origin.items()}
    held = [
        [name for name, loops in zip(names, own[operand], strict=True) for _ in loops]
        for operand, names in zip(OPERANDS, levels, strict=True)
    ]
    orders = [[(str(dim), int(size)) for loops in own[o] for dim, size in loops] for o in OPERANDS]
    if not orders[0] == orders[1] == orders[2]:
        raise ValueError("the operands' loops differ")
    loops = reversed([*zip(orders[0], *held, strict=True)])
    lines = ["dims " + " ".join(f"{dim}={shape[dim]}" for dim in "gnkcpqrs")]
    spatial = {}
    for oa, factors in evaluation.layer.spatial_mapping.items():
        found = [f"{DIMS[str(dim)]}={int(size)}" for dim, size in factors.items() if size > 1]
        if found:
            spatial[str(oa)] = found
    parts = [f"{axis}({' '.join(spatial[oa])})" for axis, oa in AXES.items() if oa in spatial]
    lines += ["spatial " + " ".join(parts)] if parts else []
    lines += [f"for {DIMS[dim]} {size} I={i} W={w} O={o}" for (dim, size), i, w, o in loops]
    flags = {str(op): values[1:] for op, values in evaluation.double_buffer_true.items()}
    double = [
        f"{name}/{operand}"
        for operand, names, used in zip(OPERANDS, levels, held, strict=True)
        for name, two in zip(names[:-1], flags[operand][:-1], strict=True)
        if two and name in used and operand in target["memory"][name].get("double", [])
    ]
    return "\n".join([*lines, *(["double " + " ".join(sorted(double))] if double else [])])


def mapped(
    shape: dict[str, object], objective: str, folder: Path, args: argparse.Namespace
) -> dict[str, object]:
    """One layer, one objective."""
    target = tomllib.loads(args.target.read_text(encoding="utf-8"))
    files = {"accelerator": accelerator(target), "mapping": hints(target)}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    began = time.perf_counter()
    *_, found = get_hardware_performance_zigzag(
        [layer(shape)],
        str(folder / "accelerator.yaml"),
        str(folder / "mapping.yaml"),
        opt=GOALS[objective],
        dump_folder=str(folder / "out"),
        lpf_limit=args.loops,
        nb_spatial_mappings_generated=args.spatial,
        loma_show_progress_bar=False,
    )
    evaluation = found[0][1][0][0]
    return {
        "shape": shape,
        "objective": objective,
        "nest": nest(shape, evaluation, target),
        "zigzag_cycles": float(evaluation.latency_total2),
        "zigzag_pj": float(evaluation.energy_total),
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    """Map all layers of a file."""
    parser = argparse.ArgumentParser(description="ZigZag's mappings as nests")
    parser.add_argument("layers", type=Path, help="shapes, as models/workloads.py --json has them")
    parser.add_argument("target", type=Path, help="a target file of the kind sram-cim")
    parser.add_argument("output", type=Path)
    parser.add_argument("--objective", default="latency,edp", help="comma-separated")
    parser.add_argument("--loops", type=int, default=6, help="ZigZag's limit of loop factors")
    parser.add_argument("--spatial", type=int, default=3, help="unrollings that ZigZag tries")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    done = json.loads(args.output.read_text()) if args.output.exists() else []
    for shape in json.loads(args.layers.read_text()):
        for objective in args.objective.split(","):
            if any(row["shape"] == shape and row["objective"] == objective for row in done):
                continue
            with tempfile.TemporaryDirectory() as folder:
                done.append(mapped(shape, objective, Path(folder), args))
            args.output.write_text(json.dumps(done, indent=1))
            print(f"{done[-1]['seconds']:7.1f} s  {objective}\n{done[-1]['nest']}", flush=True)


if __name__ == "__main__":
    main()
