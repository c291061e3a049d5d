"""Run a student's functions within limits, compare them with the library's, say in words what is wrong."""

import contextlib
import copy
import difflib
import faulthandler
import functools
import inspect
import itertools
import json
import math
import numbers
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from custom_backend.array import KERNELS
from exercises._tasks import EXERCISES, MISTAKES, Case, Exercise, Task

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

USAGE = "python grade.py FILE or FOLDER …, for example python grade.py exercises/conv.py"
ENTRY_POINT = Path(__file__).parents[1] / "grade.py"
COURSE = Path(os.path.relpath(Path(__file__).parent))
INSIDE = "--in-this-process"
SECONDS, MEMORY, PRINTED = 6.0, 1 << 30, 100_000  # what a student's file may take: time, bytes, characters
STEP = 1e-5  # of numerical derivatives


class Wrong(Exception):
    """What is wrong with a student's function, as a sentence, where nothing further can be said of it."""


class Finding(NamedTuple):
    """What was found out about a result: "right", "wrong" or "open" (not filled in yet), and a sentence."""

    verdict: str
    says: str


# ---- calling what a student wrote


def blame(error: BaseException, module: ModuleType) -> str:
    """An exception in one line, with the student's line in which it arose."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno}: {(error.text or '').strip()})"
    said = textwrap.shorten(f"{type(error).__name__}: {error}".removesuffix(": "), 200, placeholder=" …")
    if isinstance(error, ImportError):
        said += "; an exercise needs NumPy and nothing else"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module.__file__
    ]
    return f"{said} (line {frames[-1].lineno}: {frames[-1].line})" if frames else said


def call(module: ModuleType, task: Task, arguments: Case) -> Any:
    """What the student's function returns for copies of the arguments.

    Raises:
        Wrong: if it is missing, does not take them, fails, ends the program or changes an argument in place.
        NotImplementedError: if it is not filled in.
    """
    name = task.solution.__name__
    function = getattr(module, name, None)
    if not callable(function):
        near = difflib.get_close_matches(name, vars(module), 1)
        raise Wrong(f"{name} is missing: the file has no such function" + (f" ({near[0]}?)" if near else ""))
    try:
        inspect.signature(function).bind(*arguments.values())
    except TypeError:
        raise Wrong(
            f"{name} must take ({', '.join(arguments)}); it takes {inspect.signature(function)}"
        ) from None
    except ValueError:
        pass  # a function of NumPy's own tells no signature
    given = copy.deepcopy(dict(arguments))
    try:
        with np.errstate(all="ignore"):
            value = function(*given.values())
    except NotImplementedError:
        raise
    except MemoryError:
        raise Wrong(f"{name} asks for more memory than the {MEMORY >> 30} GiB it may have") from None
    except SystemExit:
        raise Wrong(f"{name} ends the program (exit): let it return its result") from None
    except BaseException as error:  # whatever a student's code may raise is a finding
        raise Wrong(f"{name} raises {blame(error, module)}") from None
    for argument, before in arguments.items():
        if isinstance(before, np.ndarray) and not np.array_equal(given[argument], before):
            raise Wrong(f"{name} changes its argument `{argument}` in place: work on a copy of it")
    return value


def parts(task: Task, value: Any) -> list[Any]:
    """The results of a function of ours, one by one."""
    return [np.asarray(part) for part in (value if len(task.results) > 1 else (value,))]


def answer(module: ModuleType, task: Task, arguments: Case, dtype: type = float) -> list[Any]:
    """The results of the student's function, each an array of that dtype, or a number.

    Raises:
        Wrong: if it returns something else; and see `call`.
    """
    value, name, names = call(module, task, arguments), task.solution.__name__, list(task.results)
    several = isinstance(value, (tuple, list))
    if len(names) > 1 and not (several and len(value) == len(names)):
        said = f"{len(value)} values" if several else "None" if value is None else f"a {type(value).__name__}"
        raise Wrong(f"{name} must return {len(names)} values ({', '.join(names)}); it returns {said}")
    answers = list(value) if len(names) > 1 else [value]
    for result, got in zip(names, answers, strict=True):
        said = "None (is there a return?)" if got is None else f"a {type(got).__name__}"
        if isinstance(got, np.ndarray) and task.results[result] and got.dtype != dtype:
            wanted = np.dtype(dtype)
            raise Wrong(f"{result} is of dtype {got.dtype}: for arguments of {wanted} it must be {wanted}")
        if not isinstance(got, np.ndarray) and task.results[result]:
            raise Wrong(f"{name} must return an array ({result}); it returns {said}")
        scalar = isinstance(got, np.ndarray) and got.ndim == 0 and got.dtype.kind in "fiu"
        if not task.results[result] and not (scalar or isinstance(got, numbers.Real)):
            shape = f" of shape {got.shape}" if isinstance(got, np.ndarray) else ""
            raise Wrong(f"{name} must return a number ({result}); it returns {said}{shape}")
    return [np.asarray(got) for got in answers]


# ---- what is wrong with it


def same(got: Any, expected: Any, part: Any = ...) -> bool:
    """Whether two arrays have one shape and agree but for rounding."""
    if got.shape != expected.shape:
        return False
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    return bool(np.allclose(got[part], expected[part], 1e-7, 1e-9 * scale, equal_nan=True))


source = functools.cache(inspect.getsource)


def mistaken(task: Task, mistake: Sequence[str], case: Case) -> list[Any]:
    """The results of the task's solution with this mistake in it."""
    own, helpers = source(task.solution), "".join(map(source, task.helpers))
    for old, new in zip(mistake[2::2], mistake[3::2], strict=True):
        if not old:
            own = own.replace("-> A:\n", f"-> A:\n    {new}\n", 1)
        elif old in own:
            own = own.replace(old, new)
        elif old in helpers:
            helpers = helpers.replace(old, new)
        else:
            raise LookupError(f"{old!r} is not in {task.solution.__name__}")
    scope = dict(vars(sys.modules[task.solution.__module__]))
    exec(helpers + own, scope)
    return parts(task, scope[task.solution.__name__](*copy.deepcopy(dict(case)).values()))


def mistakes(task: Task, result: str) -> list[list[str]]:
    """The known mistakes of a result."""
    of_task = [rows for names, rows in MISTAKES.items() if task.solution.__name__ in names.split(", ")]
    return [mistake for rows in of_task for mistake in rows if re.match(mistake[0], result)]


def shape_fault(got: Any, right: Any, axes: Sequence[str], counts: Mapping[str, int]) -> str:
    """What an array of the wrong shape has wrong."""
    said = f"has the shape {got.shape}: expected is {right.shape}, ({', '.join(filter(None, axes))})"
    if not got.size:
        return f"{said}; a slice such as p:-p is empty for p = 0"
    if got.size == right.size and same(got.reshape(right.shape), right):
        return f"{said}; its numbers are right"
    orders = itertools.permutations(range(got.ndim)) if got.ndim == right.ndim else ()
    if any(same(got.transpose(order), right) for order in orders):
        batch_first = got.ndim > 2 and same(np.moveaxis(got, 0, -1), right)
        return f"{said}; {'the batch must be the LAST axis' if batch_first else 'it is transposed'}"
    for n in range(1, got.ndim + 1 if got.size < 1e6 else 0):
        for lost in itertools.combinations(range(got.ndim), n):
            if same(got.sum(lost), right):
                batch = n == 1 and got.shape[lost[0]] == counts.get("the batch size")
                return f"{said}; the sum over {'the batch' if batch else f'axes {lost}'} is missing"
    return said


def pattern(got: Any, right: Any, axes: Sequence[str], counts: Mapping[str, int]) -> str:
    """What the wrong entries have in common; "" if nothing is seen."""
    wrong = ~np.isclose(got, right, 1e-7, 1e-9 * np.abs(right).max(initial=0))
    everywhere = tuple(range(right.ndim))
    factor = float((got * right).sum() / ((right * right).sum() or 1))
    if not got.any():
        return "is 0 everywhere"
    if factor and same(got, factor * right):
        large = max(abs(factor), 1 / abs(factor))
        what = next((f" ({name}: {n})" for name, n in counts.items() if math.isclose(n, large)), "")
        if what or right.ndim or math.isclose(large, 1):
            sign = "has the wrong sign" if factor < 0 else ""
            size = f"is {large:.4g} times too {'large' if abs(factor) > 1 else 'small'}{what}"
            return sign if math.isclose(large, 1) else " and ".join(filter(None, (sign, size)))
    if right.ndim and same(got - right, np.full(right.shape, (got - right).mean())):
        return f"is off by {float((got - right).mean()):.4g} everywhere"
    if any(same(got.transpose(order), right) for order in itertools.permutations(everywhere)):
        return "is transposed"
    for n in everywhere:
        for flipped in itertools.combinations(everywhere, n + 1):
            if same(np.flip(got, flipped), right):
                return f"is mirrored along {' and '.join(axes[axis] for axis in flipped)}"
    if right.ndim and same(np.sort(got, None), np.sort(right, None)):
        return "has the right numbers in the wrong places"
    if right.ndim == 4 and min(right.shape[1:3]) > 2 and not wrong[:, 1:-1, 1:-1].any():
        return "is right inside, but the border is lost or wrong (outermost rows and columns)"
    for axis, name in enumerate(axes[: right.ndim]):
        bad = set(np.nonzero(wrong)[axis].tolist())
        if good := set(range(right.shape[axis])) - bad:
            few, which = ("right", good) if len(good) < len(bad) else ("wrong", bad)
            return f"is {few} only for {name} {', '.join(map(str, sorted(which)))} (counted from 0)"
    return ""


def fault(got: Any, right: Any, axes: Sequence[str], counts: Mapping[str, int]) -> str:
    """What differs, in general words."""
    if got.shape != right.shape:
        return shape_fault(got, right, axes, counts)
    bad = ~np.isfinite(got) & np.isfinite(right)
    if bad.any():
        where = f" in {bad.sum()} of {got.size} entries" if got.ndim else ""
        return f"is {'NaN' if np.isnan(got[bad]).any() else 'infinite'}{where}"
    wrong = ~np.isclose(got, right, 1e-7, 1e-9 * np.abs(right).max(initial=0))
    at = tuple(np.argwhere(wrong)[0].tolist())
    known = pattern(got, right, axes, counts)
    example = f"{float(got[at]):.6g} where {float(right[at]):.6g} is right"
    if not right.ndim:
        return f"{known} ({example})" if known else f"is {example}"
    return f"{known or f'is wrong in {wrong.sum()} of {got.size} entries'}: at {list(at)} it is {example}"


def judge(task: Task, index: int, got: list[Any], right: list[Any]) -> str:
    """What is wrong with result `index`, first in the cases and then in the traps; "" if nothing is."""
    name, axes = list(task.results.items())[index]
    wrong = [
        i
        for i, (mine, expected) in enumerate(zip(got, right, strict=True))
        if not same(mine[index], expected[index])
    ]
    if not wrong:
        return ""
    first, ordinary = wrong[0], len(task.cases)
    mine, expected = got[first][index], right[first][index]
    if first >= ordinary:
        said = fault(mine, expected, axes.split(", "), {})
        return (
            f"{name} is right on ordinary inputs, but not {task.traps[first - ordinary][1]} (here it {said})"
        )
    for mistake in mistakes(task, name):
        variants = [mistaken(task, mistake, case)[index] for case in task.cases]
        finite = [np.isfinite(answers[index]) for answers in got[:ordinary]]
        fits = all(same(a[index], b, f) for a, b, f in zip(got, variants, finite, strict=False))
        if fits and not same(variants[first], expected, finite[first]):
            return f"{name} {mistake[1]}"
    for other, value in zip(task.results, right[first], strict=True):
        if same(mine, value):
            return f"{name} is {other}: the results are in the wrong order"
    case = task.cases[first]
    arrays = {key: value.shape for key, value in case.items() if isinstance(value, np.ndarray)}
    counts = {"the batch size": next(iter(arrays.values()))[-1]}
    for key, shape in arrays.items():
        counts |= {f"all of a channel of `{key}`": math.prod(shape[1:]), f"all of `{key}`": math.prod(shape)}
    said = fault(mine, expected, axes.split(", "), counts)
    if set(arrays.values()) == {expected.shape} == {mine.shape} and "x" in case:
        sides = {"x > 0": case["x"] > 0, "x ≤ 0": case["x"] <= 0}
        bad = [side for side, part in sides.items() if not same(mine, expected, part)]
        if len(bad) == 1:
            said = f"is wrong where {bad[0]} alone: " + said.partition(": ")[2]
    if len(wrong) < ordinary and all(i < ordinary for i in wrong):
        plain = {key: value for key, value in case.items() if not isinstance(value, np.ndarray)}
        told = [
            f"{key} {value}"
            for key, value in plain.items()
            if any(other[key] != value for other in task.cases)
        ]
        said += f" (with {', '.join(told)}; not in every case)"
    if name.startswith("∂"):
        said = said.replace("the border is", "the border's gradient is")
    return f"{name} {said}"


def derivative(task: Task, index: int, forward: Callable[..., Any], direction: Any) -> float:
    """The numerical derivative of the task's loss by the argument of result `index`, along a direction."""
    assert task.loss is not None
    case, argument = task.cases[0], task.by[index]
    start = case.get(argument, np.zeros_like(direction))
    ahead, behind = (task.loss(forward, **{**case, argument: start + h * direction}) for h in (STEP, -STEP))
    return float(ahead - behind) / (2 * STEP)


@np.errstate(all="ignore")
def check(exercise: Exercise, module: ModuleType) -> list[Finding]:
    """Grade what a student wrote, result by result."""
    findings: list[Finding] = []
    forward, trusted = (
        exercise.tasks[0].library,
        True,
    )  # what numerical derivatives are of, and whether it is right
    for task in exercise.tasks:
        try:
            tried = [(case, "") for case in task.cases] + list(task.traps)
            right = [parts(task, task.library(*copy.deepcopy(case).values())) for case, _ in tried]
            got = []
            for case, trap in tried:
                try:
                    got.append(answer(module, task, case))
                except Wrong as error:
                    raise Wrong(f"{error}: it fails {trap}" if trap else str(error)) from None
            faults = [judge(task, index, got, right) for index in range(len(task.results))]
            if not any(faults):
                single = {
                    key: value.astype(np.float32)
                    if isinstance(value, np.ndarray) and value.dtype == np.float64
                    else value
                    for key, value in task.cases[0].items()
                }
                answer(module, task, single, np.float32)
            elif [each.shape for each in got[0]] == [each.shape for each in right[0]] and not all(
                map(same, answer(module, task, task.cases[0]), got[0])
            ):
                raise Wrong(
                    f"{task.solution.__name__} gives something else the second time: let it depend on its "
                    "arguments alone, without random numbers of its own or what np.empty leaves"
                )
        except NotImplementedError:
            findings.append(Finding("open", f"{task.solution.__name__} is not filled in yet"))
            continue
        except Wrong as error:
            findings.append(Finding("wrong", str(error)))
            continue
        for index, (name, wrong) in enumerate(zip(task.results, faults, strict=True)):
            says = wrong or f"{name} agrees with the library"
            if task.loss and got[0][index].shape == right[0][index].shape:
                direction = np.random.default_rng(1).standard_normal(right[0][index].shape)
                numerical = derivative(task, index, forward, direction)
                along = float((got[0][index] * direction).sum())
                fits = math.isclose(along, numerical, rel_tol=1e-4, abs_tol=1e-6)
                if trusted and not wrong:
                    says += " and with numerical derivatives" if fits else ", not with numerical derivatives"
                elif trusted and not fits and "entries" in wrong:
                    says += f"; along a random direction it is {along:.4g}, numerically {numerical:.4g}"
                elif wrong and fits and not trusted and "ordinary inputs" not in wrong:
                    says += f"; it fits your {exercise.tasks[0].solution.__name__}, so mend that first"
            findings.append(Finding("wrong" if wrong else "right", says))
        if got[0][0].shape == right[0][0].shape:
            forward, trusted = getattr(module, task.solution.__name__), not faults[0]
    return findings


# ---- in a process of its own


def load(path: Path) -> ModuleType:
    """The student's module.

    Raises:
        Wrong: if it cannot be read or run.
    """
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except SystemExit:
        raise Wrong(
            "the file ends the program (exit) when it is read: let it define functions only"
        ) from None
    except SyntaxError as error:
        raise Wrong(f"the file is not Python: {blame(error, module)}") from None
    except BaseException as error:  # whatever a student's code may raise is a finding
        raise Wrong(f"the file fails when it is read: {blame(error, module)}") from None
    return module


def inside(path: Path, folder: Path, seconds: float) -> None:
    """Grade in this process, within limits, and leave the findings in the folder."""
    KERNELS.clear()  # the formulas alone: kernels need more than NumPy, and take seconds to import
    sys.dont_write_bytecode = True
    sys.path.append(str(path.parent))  # where the student's other exercises are
    with contextlib.suppress(
        ValueError, OSError
    ):  # macOS refuses, and so does a lower limit of the user's own
        if resource:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    stack = (folder / "stack").open("w")
    faulthandler.enable(stack)
    faulthandler.dump_traceback_later(seconds, exit=True, file=stack)
    try:
        findings = check(EXERCISES[path.stem], load(path))
    except Wrong as error:
        findings = [Finding("wrong", str(error))]
    except Exception as error:  # a fault of ours, or an object that we did not think of
        said = f"{type(error).__name__}: {error}"
        findings = [Finding("wrong", f"grade.py cannot grade this file ({said}): show it to your teacher")]
    (folder / "findings").write_text(json.dumps(findings))


def grade(path: Path, seconds: float = SECONDS) -> tuple[list[Finding], str]:
    """The findings on a student's file, and what it printed."""
    printed = bytearray()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, ENTRY_POINT, INSIDE, str(path.resolve()), folder, str(seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"},
        )

        pipe = process.stdout
        assert pipe is not None

        def end() -> None:
            """End the process and all that it started."""
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()

        def read() -> None:
            """Take what is printed, up to a limit."""
            while piece := os.read(pipe.fileno(), 1 << 16):
                printed.extend(piece)
                if len(printed) > PRINTED:
                    end()
                    break

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            process.wait(min(2, seconds))
        except subprocess.TimeoutExpired:
            print(f"still running; it is stopped after {seconds:g} seconds", file=sys.stderr)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds + 1)  # it ends itself after `seconds`, and says where it was
        finally:
            end()
            code = process.wait()
            reader.join(1)
            pipe.close()
        return outcome(path, Path(folder), code, seconds, len(printed)), printed.decode(errors="replace")


def outcome(path: Path, folder: Path, code: int, seconds: float, printed: int) -> list[Finding]:
    """The findings that the process left; where it left none, why."""
    if printed > PRINTED:
        return [Finding("wrong", f"the file prints more than {PRINTED:,} characters: take the print out")]
    if (folder / "findings").exists():
        return [Finding(*finding) for finding in json.loads((folder / "findings").read_text())]
    stack = (folder / "stack").read_text() if (folder / "stack").exists() else ""
    line = re.search(f'"{re.escape(str(path.resolve()))}", (line .*)', stack)
    where = f" ({line[1]})" if line else ""
    if code == -signal.SIGKILL or stack.startswith("Timeout"):
        return [
            Finding("wrong", f"the file is not done after {seconds:g} seconds: does a loop never end?{where}")
        ]
    if code < 0:
        return [Finding("wrong", f"the file crashes Python ({signal.Signals(-code).name}){where}")]
    return [Finding("wrong", f"the file ends the program (exit code {code}) before it is graded")]


# ---- what is shown


def show(head: str, text: str, indent: int = 0) -> None:
    """Print a paragraph, on a terminal wrapped to its width."""
    if sys.stdout.isatty():
        width, rest = shutil.get_terminal_size().columns, " " * indent
        print(textwrap.fill(head + text, width, subsequent_indent=rest, break_on_hyphens=False), flush=True)
    else:
        print(head + text, flush=True)


def report(path: Path) -> bool:
    """Grade a file and show every finding; whether all is right."""
    exercise = EXERCISES[path.stem]
    show("", f"{path}: {exercise.title}")
    findings, printed = grade(path)
    for verdict, says in findings:
        show(f"  {verdict:<5}  ", says, 9)
    right = sum(verdict == "right" for verdict, _ in findings)
    if right == len(findings):
        show("", f"All right. Now compare yours with {exercise.where}.")
    else:
        show("", f"{right} of {len(findings)} right. The formula and the shapes are at the head of the file.")
    lines = printed.splitlines()
    if lines:
        more = [f"  … and {len(lines) - 10:,} lines more"] if len(lines) > 10 else []
        print("It printed:", *(f"  {line[:200]}" for line in lines[:10]), *more, sep="\n")
    return right == len(findings)


def table(paths: Sequence[Path]) -> bool:
    """Grade several files, a line each; whether all are right."""
    width, passed = max(len(str(path)) for path in paths), 0
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    print(f"{'file':<{width}}  right  what to look at first")
    for path in paths:
        findings, _ = grade(path)
        wrong = [says for verdict, says in findings if verdict != "right"]
        line = (
            f"{path!s:<{width}}  {f'{len(findings) - len(wrong)}/{len(findings)}':<5}  {''.join(wrong[:1])}"
        )
        print(line.rstrip() if len(line) <= columns else f"{line[: columns - 1]}…", flush=True)
        passed += not wrong
    print(f"{passed} of {len(paths)} right")
    return passed == len(paths)


def stop(message: str) -> NoReturn:
    """Say what is wrong with the command line, and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def files(word: str) -> list[Path]:
    """The exercises that a word of the command line means: a file, or all of a folder."""
    path, order = Path(word), list(EXERCISES)
    known = f"Exercises: {', '.join(order)}."
    if path.is_dir():
        found = [file for file in path.rglob("*.py") if file.stem in EXERCISES]
        found.sort(key=lambda file: (file.parent, order.index(file.stem)))
        return found or stop(f"{word} holds no exercise. {known}")
    if path.exists() and path.suffix == ".py" and path.stem in EXERCISES:
        return [path]
    near = difflib.get_close_matches(path.stem, order, 1, cutoff=0.5)
    beside = [folder / f"{near[0]}.py" for folder in (path.parent, COURSE) if near]
    hints = [f"Did you mean {file}?" for file in beside if file.exists()]
    what = "is no exercise; a file is known by its name" if path.exists() else "does not exist"
    stop(f"{word} {what}. {(hints or [known])[0]}")


def main() -> None:
    """List the exercises, or grade what the command line names; exit code 1 unless all is right."""
    words = sys.argv[1:]
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, as it ends others
    if words[:1] == [INSIDE]:
        return inside(Path(words[1]), Path(words[2]), float(words[3]))
    if not words or words[0] in ("-h", "--help"):
        print(f"{USAGE}\n\nFill in the functions of a file, then grade it. The exercises:")
        for name, exercise in EXERCISES.items():
            print(f"  {COURSE / name}.py".ljust(31), exercise.title)
        return None
    paths = [path for word in words for path in files(word)]
    if not (report(paths[0]) if len(paths) == 1 else table(paths)):
        raise SystemExit(1)
    return None
