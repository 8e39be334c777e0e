"""Interpret the pickle inside a torch file on a machine that can only build tensors.

A pickle is a program for a stack machine, and `pickle.load` lets that program call
any function of any module. The machine here knows the instructions that
`torch.save` writes and the names in `torch_globals`; it imports nothing, calls nothing
from the file, and answers everything else with `ValueError`. Instructions are decoded
by the standard library's `pickletools`, which executes nothing.

Tensor data is not in the pickle: it refers to *storages* (flat arrays) by key. The
result therefore holds `Tensor` records, which `torch_file` turns into arrays.
"""

import pickletools
from typing import Any, NamedTuple, Protocol

from ftjax.weights.torch_globals import (
    Storage,
    call_global,
    find_global,
    make_storage,
    set_items,
)

# The largest state dicts of this library need some 50,000 instructions; the limit
# bounds the memory that a hostile program can take.
MAX_INSTRUCTIONS = 2_000_000


class Stream(Protocol):
    """What `pickletools.genops` needs of a file."""

    def read(self, n: int = ..., /) -> bytes:
        """The next `n` bytes."""
        ...

    def readline(self) -> bytes:
        """The bytes up to the next line end, with it."""
        ...

    def tell(self) -> int:
        """The position of the next byte."""
        ...


class Result(NamedTuple):
    """What a program left on the stack, and the storages it referred to, by key."""

    value: Any
    storages: dict[str, Storage]


def run_pickle(stream: Stream) -> Result:
    """Interprets one pickle, leaving `stream` just behind its STOP instruction.

    Args:
        stream: positioned at the start of a pickle. A `read(n)` with an absurd n must
            not allocate n bytes; `mmap` and `BytesIO` are safe, plain files are not.

    Returns:
        The value (None, bool, int, float, str, tuple, list, dict, `Tensor`) and the
        storages it uses. OrderedDict comes back as dict, a Parameter as its `Tensor`.

    Raises:
        ValueError: the program is damaged, too long, or asks for anything but tensors
            in containers. Nothing has been executed.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

    def pop() -> Any:
        if len(stack) <= (marks[-1] if marks else 0):
            raise ValueError("damaged pickle: an instruction found its stack empty")
        return stack.pop()

    def pop_to_mark() -> list[Any]:
        if not marks:
            raise ValueError("damaged pickle: an instruction found no mark")
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def recall(index: int) -> Any:
        if index not in memo:
            raise ValueError(f"damaged pickle: nothing was memorized as {index}")
        return memo[index]

    def top() -> Any:
        stack.append(pop())
        return stack[-1]

    for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
        if count >= MAX_INSTRUCTIONS:
            raise ValueError(
                f"its pickle is longer than {MAX_INSTRUCTIONS:,} instructions, "
                "more than any state dict needs"
            )
        argument: Any
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return Result(pop(), storages)
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND":
                item = pop()
                _expect(top(), list, opcode.name).append(item)
            case "APPENDS":
                items = pop_to_mark()
                _expect(top(), list, opcode.name).extend(items)
            case "SETITEM":
                value, key = pop(), pop()
                set_items(_expect(top(), dict, opcode.name), [key, value])
            case "SETITEMS":
                items = pop_to_mark()
                set_items(_expect(top(), dict, opcode.name), items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = top()
            case "MEMOIZE":
                memo[len(memo)] = top()
            case "BINGET" | "LONG_BINGET":
                stack.append(recall(argument))
            case "GLOBAL":
                # pickletools joins module and name with the first space
                stack.append(find_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = pop(), pop()
                stack.append(find_global(module, name))
            case "BINPERSID":
                storage = make_storage(pop())
                known = storages.setdefault(storage.key, storage)
                if (known.dtype, known.numel) != (storage.dtype, storage.numel):
                    raise ValueError(
                        f"storage {storage.key!r} is declared twice, differently"
                    )
                stack.append(storage)
            case "REDUCE":
                arguments, function = pop(), pop()
                stack.append(call_global(function, arguments))
            case "BUILD":
                # nn.Module.state_dict() hangs a `_metadata` attribute on its dict
                attributes = pop()
                _expect(attributes, dict, opcode.name)
                _expect(top(), dict, opcode.name)
            case _:
                raise ValueError(
                    f"its pickle uses the instruction {opcode.name} at byte "
                    f"{position}, which torch.save never writes for tensors; nothing "
                    "was executed"
                )
    raise ValueError("damaged pickle: it ends without STOP")


def _expect(value: Any, kind: type, instruction: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(
            f"its pickle applies {instruction} to a {type(value).__name__}; only a "
            f"{kind.__name__} is allowed there; nothing was executed"
        )
    return value
