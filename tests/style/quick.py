#!/usr/bin/env python3
"""What translated code calls while FS.base is a guest's window must do without its thread's data.

  quick.py PROGRAM FUNCTION...

Disassembles PROGRAM and follows the calls from each FUNCTION. Nothing reached may use FS, leave the program, or call what
only run time knows. Skipped (77) without objdump.
"""
import re, shutil, subprocess, sys

SYMBOL = re.compile(r'^[0-9a-f]+ <(.+)>:$')
BRANCH = re.compile(r'(?:notrack |bnd )*(?:call|j\w+)\s+(\S.*)')
TARGET = re.compile(r'<([^>+]+)(?:\+0x[0-9a-f]+)?>')


def functions(lines):
    """Name -> [(instruction, called function or None)] for what matters: FS and branches out of the function."""
    found, name = {}, None
    for line in lines:
        symbol = SYMBOL.match(line)
        if symbol:
            name = symbol.group(1)
            found[name] = []
            continue
        insn = line.split('\t')[-1].strip() if line.count('\t') >= 1 else ''
        if name is None or not insn:
            continue
        branch = BRANCH.match(insn)
        target = branch and TARGET.search(branch.group(1))
        if '%fs:' in insn or 'syscall' in insn or (branch and not target):
            found[name].append((insn, None))
        elif target and target.group(1) != name:
            found[name].append((insn, target.group(1)))
    return found


def problems_of(found, root):
    if root not in found:
        return ['%s: there is no such function' % root]
    problems, way, todo = [], {root: root}, [root]
    while todo:
        name = todo.pop()
        for insn, called in found[name]:
            if called is None:
                problems.append('%s: `%s`' % (way[name], insn))
            elif called not in found or '@plt' in called:
                problems.append('%s: calls %s' % (way[name], called))
            elif called not in way:
                way[called] = way[name] + ' > ' + called
                todo.append(called)
    return problems


def main():
    if not shutil.which('objdump'):
        sys.exit(77)
    text = subprocess.run(['objdump', '-d', '--no-show-raw-insn', sys.argv[1]], stdout=subprocess.PIPE, check=True).stdout
    found = functions(text.decode().split('\n'))
    problems = [p for root in sys.argv[2:] for p in problems_of(found, root)]
    for p in problems:
        print(p)
    sys.exit(bool(problems))


if __name__ == '__main__':
    main()
