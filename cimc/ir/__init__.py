"""The intermediate representations: graph, tiles, program; the grammar of their text forms.

What a dump prints can be read back equal: `parse_graph(str(graph), graph.tensors) == graph`. Words
in quotes stand for themselves; `*` repeats, `?` may be absent, `|` is or; items of a list are
separated by commas. White space and line ends mean nothing, `#` starts a comment.

Words of every form (`cimc.ir.text`)

    name       "%" (letter | digit | "_" | "." | "/" | "$" | "-")+ | "%" string
    string     a JSON string in double quotes
    number     an integer or a decimal, "inf", "-inf", "nan"
    literal    number | string | "true" | "false" | "none" | "(" literal,* ")"
    attributes "{" (word "=" literal),* "}"
    type       element "[" integer,* "]" quant?
    element    "i2" "i4" "i8" "i16" "i32" "i64", the same with "u", "bool", "f16" "f32" "f64"
    quant      "<" scale "," zero ">"               real number = scale * (integer - zero)

Graph (`cimc.ir.graph`; the ops are the classes of `cimc.ir.ops`)

    graph      "graph" string op* "return" name,*
    op         name ":" type "=" mnemonic operand,* attributes? nodes?
    operand    name | "_" | "[" name,* "]"          "_": an optional operand that is absent, which
                                                    the last ones may be without it
    nodes      "@" "(" string,* ")"                 the ONNX nodes that the op stands for

An op makes one value, of the name and type on its left; a value is made once and before it is read.
Operands come in the order of the class's fields, attributes by name; an attribute that has its
default value is not printed. `layer` is an attribute of every op: the heavy op that it runs with.

A constant has `digest="..."`, which names a tensor by its content, and `value=(...)` if that has no
more than 16 elements. `parse_graph` finds other tensors in its argument `tensors`.

    graph "example"
    %x : u8[1,3,8,8]<0.0078125,128> = input
    %w : i8[4,3,1,1] = constant {value=(1, -2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12), digest="..."}
    %m : f32[1] = constant {value=(0.01,), digest="..."}
    %a : i32[1,4,8,8] = conv %x, %w, _ {strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)} @("C",)
    %y : i8[1,4,8,8]<0.5,0> = requant %a, %m, _ {layer="a", low=0} @("Relu", "Q")
    return %y
"""

from cimc.ir import ops as ops  # registers the ops that the text forms name
