"""The error codes of the frontend.

CIM11xx: the file. CIM12xx: operators (CIM1203 is a target's: an op that it has no place for).
CIM13xx: quantizing a float model.
"""

from __future__ import annotations

UNREADABLE = "CIM1101"
NOT_ONNX = "CIM1102"
TOO_NEW = "CIM1103"
INVALID = "CIM1104"
TOO_OLD = "CIM1105"
BROKEN_TENSOR = "CIM1106"
MISSING_DATA = "CIM1107"
OUTSIDE_DATA = "CIM1108"
DUPLICATE = "CIM1109"
UNDEFINED = "CIM1110"
CYCLE = "CIM1111"
DYNAMIC = "CIM1112"
SHAPE_OPTION = "CIM1113"
NOT_A_TENSOR = "CIM1114"
ELEMENT_TYPE = "CIM1115"
TOO_LARGE = "CIM1116"

OPERATOR = "CIM1201"
DOMAIN = "CIM1202"
FORM = "CIM1208"
NOT_CONSTANT = "CIM1204"
SHAPES = "CIM1205"
CONTROL_FLOW = "CIM1207"

CALIBRATION = "CIM1301"
CALIBRATION_SHAPE = "CIM1302"
QUANTIZER = "CIM1303"
RANDOM = "CIM1304"
TERNARY = "CIM1305"

CODES: dict[str, str] = {
    UNREADABLE: "the model file does not exist or cannot be read",
    NOT_ONNX: "the file is not an ONNX model, is cut short, or is damaged",
    TOO_NEW: "IR version or opset is newer than the installed onnx package knows",
    INVALID: "the ONNX checker refuses a node or a graph of the model",
    TOO_OLD: "the model's opset is older than 7",
    BROKEN_TENSOR: "a stored tensor's shape, element type and bytes do not fit each other",
    MISSING_DATA: "a file of external weights is missing or too short",
    OUTSIDE_DATA: "a path of external weights leaves the model's folder",
    DUPLICATE: "two nodes, inputs or initializers make the same value",
    UNDEFINED: "a node or an output reads a value that nothing makes",
    CYCLE: "nodes depend on each other in a cycle",
    DYNAMIC: "a dimension of an input is not known",
    SHAPE_OPTION: "a shape given by the user does not fit the model",
    NOT_A_TENSOR: "an input or output is a sequence, a map, an optional or a sparse tensor",
    ELEMENT_TYPE: "an element type that the IR does not have",
    TOO_LARGE: "a tensor has more elements than the tool handles",
    OPERATOR: "an operator that is not supported",
    DOMAIN: "an operator of a foreign domain",
    FORM: "an operator is supported, but not with these attributes or operands",
    NOT_CONSTANT: "an operand must be known at compile time and is not",
    SHAPES: "the shapes or element types of a node's operands do not fit each other",
    CONTROL_FLOW: "loops, branches and recurrent operators",
    CALIBRATION: "calibration data cannot be read",
    CALIBRATION_SHAPE: "calibration data does not fit the model's inputs",
    QUANTIZER: "onnxruntime cannot run or quantize the model",
    TERNARY: "weights were made ternary, which costs accuracy",
    RANDOM: "a float model was quantized on random numbers; its accuracy means nothing",
}
